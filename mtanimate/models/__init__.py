"""The network of the paper's Figure 1, one file for each box; `animator` puts them together.

Motion estimator: `motion_transformer`, with its CNN encoder `hrnet` and the `keypoint_refinement` of faces; the
estimators that the paper compares with are `keypoint_detector` (FOMM, Monkey-Net) and `region_predictor` (MRAA).
The Thin-Plate Spline Motion Model, whole: `tpsmm`, `thin_plate_splines`, `resnet`, `inpainting`.
Motion of a picture: `motion` (keypoints and affine matrices, Eq. 1); of a face: `face_points`.
Dense motion network: `dense_motion`, or `face_dense_motion` for faces (masks, flow and occlusion, Eq. 2).
Background motion: `background_predictor`. Image generator: `generator`. Layers that several boxes share: `blocks`.
Losses of training: the package `losses`.
"""
