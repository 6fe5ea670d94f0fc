"""Hyperparameters of the network, with the limits of every number; a value out of range is refused by name."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

INFINITE = float("inf")


@dataclass(frozen=True)
class Within:
    """Limits of a number, both included, except those named in `open`: "low", "high"."""

    low: float
    high: float = INFINITE
    open: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Whether a value is within the limits."""
        above = value > self.low if "low" in self.open else value >= self.low
        return above and (value < self.high if "high" in self.open else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if 'low' in self.open else 'at least'} {self.low:g}"
        if self.high == INFINITE:
            return low
        return f"{low} and {'below' if 'high' in self.open else 'at most'} {self.high:g}"


_MOST = 10**18  # for whole numbers without another limit: 64 bits hold it
Count = Annotated[int, Within(1, _MOST)]
# Sizes of networks: far above any useful one, and low enough that what a file asks for can be built and inspected.
Layers = Annotated[int, Within(1, 256)]
Blocks = Annotated[int, Within(1, 12)]  # each halves the picture
Halvings = Annotated[int, Within(0, 12)]
Width = Annotated[int, Within(1, 16_384)]
OptionalWidth = Annotated[int, Within(0, 16_384)]
Side = Annotated[int, Within(1, 16_384)]
Parts = Annotated[int, Within(1, 1_000)]
Reduction = Annotated[float, Within(1 / 64, 1)]
Natural = Annotated[int, Within(0, _MOST)]
Weight = Annotated[float, Within(0, INFINITE, ("high",))]
Positive = Annotated[float, Within(0, INFINITE, ("low", "high"))]
Portion = Annotated[float, Within(0, 1, ("low",))]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, ("high",))]  # of a running mean or a moment: 1 would never forget
Degrees = Annotated[float, Within(0, 180)]

FACE_POINTS = 34  # the number of points in `mtanimate.models.face_points`
SPLINE_POINTS = 5  # control points of a thin-plate spline of TPSMM
MotionKind: TypeAlias = Literal["parts", "axes", "face", "splines"]


@dataclass(frozen=True)
class HRNetConfig:
    """HRNet's first three stages; without `widths` only stem and layer1."""

    widths: tuple[Width, ...] = (32, 64, 128)
    stem_width: Width = 64
    layer1_width: Width = 64
    layer1_blocks: Layers = 4
    stage2_modules: Layers = 1
    stage2_blocks: tuple[Layers, ...] = (4, 4)
    stage3_modules: Layers = 4
    stage3_blocks: tuple[Layers, ...] = (4, 4, 4)


# The backbones of the paper's Table 5, and the small preset's.
BACKBONES = {
    "hrnet_w32": HRNetConfig(),
    "hrnet_w48": HRNetConfig(widths=(48, 96, 192)),
    "stem": HRNetConfig(widths=()),
    "hrnet_small": HRNetConfig(
        stem_width=32,
        layer1_width=32,
        layer1_blocks=2,
        stage2_blocks=(2, 2),
        stage3_modules=1,
        stage3_blocks=(2, 2, 2),
    ),
}


@dataclass(frozen=True)
class MotionTransformerConfig:
    """The paper's estimator.

    Attributes:
        variant: `paper` (one token for each part, one linear head, logits / sqrt(dim)) or `release` (the published
            checkpoints: two tokens for each part, two normed heads, logits / sqrt(dim / heads)).
        attention: `unified` (Eq. 7-8) or `separate` (Eq. 5-6).
        position: the sine code is added to the image tokens before every layer (`unified`), once, or never (Table 4).
        squash: keep keypoints inside the picture by 2 sigmoid(x) - 1 (the release always does).
        scale_factor: of the anti-aliased reduction of the picture before the backbone.
        tied: `face`: the first tokens' keypoints are points of a face (`mtanimate.models.face_points`), trained by
            loss.token_landmarks, and every matrix is the skull's.
        refinement_width: channels of the convolutions on windows at full size, by which the tied points of eyes and
            mouth are refined; 0: none.
    """

    name: Literal["motion-transformer"] = "motion-transformer"
    variant: Literal["paper", "release"] = "paper"
    backbone: HRNetConfig = BACKBONES["hrnet_w32"]
    patch_size: Width = 4
    dim: Width = 192
    layers: Layers = 12
    heads: Width = 8
    mlp_ratio: Layers = 3
    attention: Literal["unified", "separate"] = "unified"
    position: Literal["every_layer", "once", "none"] = "every_layer"
    squash: bool = False
    scale_factor: Reduction = 1.0
    tied: Literal["none", "face"] = "none"
    refinement_width: OptionalWidth = 0

    @property
    def motion_kind(self) -> MotionKind:
        """See `mtanimate.models.motion.Motion`."""
        return "face" if self.tied == "face" else "parts"


@dataclass(frozen=True)
class HeatmapEstimatorConfig:
    """The estimators that the paper compares with: an hourglass on a reduced picture gives each part a heat map, whose
    mean is the keypoint. The defaults are the published sizes.

    Attributes:
        name: where the affine matrices come from: `fomm`: they are regressed; `monkey-net`: there are none, and the
            identity takes their place; `mraa`: from the heat maps' principal axes.
        temperature: of the heat maps' softmax.
        padding: of the heads' 7x7 convolutions; with less than 3 the maps are smaller than the picture, and their
            outermost pixels count as the picture's.
        shared_affine: `fomm` only: one set of four maps for all parts instead of one for each.
    """

    name: Literal["fomm", "monkey-net", "mraa"] = "fomm"
    block_expansion: Width = 32
    max_features: Width = 1024
    num_blocks: Blocks = 5
    scale_factor: Reduction = 0.25
    temperature: Positive = 0.1
    padding: Halvings = 0
    shared_affine: bool = False

    @property
    def motion_kind(self) -> MotionKind:
        """See `mtanimate.models.motion.Motion`."""
        return "axes" if self.name == "mraa" else "parts"


@dataclass(frozen=True)
class SplineEstimatorConfig:
    """The estimator of the Thin-Plate Spline Motion Model: a ResNet-18 regresses the control points of thin-plate
    splines, five for each. It needs `model.num_keypoints` in fives, and brings a dense motion network of its own
    (`mtanimate.models.tpsmm`). The defaults are the published sizes.

    Attributes:
        width: channels of the ResNet's first stage; each of the other three doubles them.
        scale_factor: of the anti-aliased reduction of the picture before it.
        identity_width: of the code of a subject's shape, in the network that tells shape from pose (`animate --mode
            avd`); 0: there is no such network.
        pose_width: of the code of a pose, likewise.
    """

    name: Literal["tpsmm"] = "tpsmm"
    width: Width = 64
    scale_factor: Reduction = 1.0
    identity_width: OptionalWidth = 0
    pose_width: OptionalWidth = 0

    @property
    def motion_kind(self) -> MotionKind:
        """See `mtanimate.models.motion.Motion`."""
        return "splines"


EstimatorConfig: TypeAlias = MotionTransformerConfig | HeatmapEstimatorConfig | SplineEstimatorConfig


@dataclass(frozen=True)
class DenseMotionConfig:
    """The dense motion network.

    Attributes:
        occlusion: one map of what is visible.
        multi_occlusion: four maps instead, at 1/8, 1/4, 1/2 and the whole of the picture's size, each for the
            generator's features of its size (needs three halvings there, and a scale_factor of 1/2, 1/4 or 1/8).
        exact_sampling: a flow without motion copies the source bit by bit, and outside its edge is repeated; published
            networks enlarge it by up to two pixels, with black outside (`mtanimate.geometry`).
        black_outside: with exact_sampling, what lies outside of the source is black, as in TPSMM.
        prior: masks begin as Gaussians about the driving keypoints of a face (needs model.estimator.tied), at twice the
            hourglass's size (`mtanimate.models.face_dense_motion`); keypoint_variance is not used then.
        residual: a learned flow is added to that of the parts; it starts at zero (needs prior).
    """

    block_expansion: Width = 64
    max_features: Width = 1024
    num_blocks: Blocks = 5
    scale_factor: Reduction = 0.25
    keypoint_variance: Positive = 0.01
    occlusion: bool = True
    exact_sampling: bool = False
    prior: bool = False
    residual: bool = False
    multi_occlusion: bool = False
    black_outside: bool = False

    @property
    def padding(self) -> str | None:
        """Outside of the source, as `mtanimate.geometry.sample` takes it."""
        return "zeros" if self.black_outside else None


@dataclass(frozen=True)
class GeneratorConfig:
    """The image generator.

    Attributes:
        skips: occlusion-gated skip connections; they have no parameters, so that weights do not reveal them.
        openings: the decoder is told where the driving face's eyes and mouth are open (needs model.dense_motion.prior).
        inpainting: TPSMM's decoder (`mtanimate.models.inpainting`): warped features stand beside its own, and
            num_bottleneck_blocks blocks follow at each size, with instance norms.
    """

    block_expansion: Width = 64
    max_features: Width = 512
    num_down_blocks: Halvings = 2
    num_bottleneck_blocks: Layers = 6
    skips: bool = True
    openings: bool = False
    inpainting: bool = False


@dataclass(frozen=True)
class BackgroundConfig:
    """The encoder of the background predictor.

    Attributes:
        resnet: it is a ResNet-18 with block_expansion channels in its first stage, as TPSMM's; the other sizes do not
            count then.
    """

    block_expansion: Width = 32
    max_features: Width = 1024
    num_blocks: Blocks = 5
    resnet: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The whole network. `resolution`: the side of the square pictures that it was trained on, in pixels."""

    resolution: Side = 256
    num_keypoints: Parts = 10
    estimator: EstimatorConfig = field(default_factory=MotionTransformerConfig)
    dense_motion: DenseMotionConfig = field(default_factory=DenseMotionConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    background: BackgroundConfig | None = None

    @property
    def moves_background(self) -> bool:
        """Whether `animate --mode absolute` moves the background. TPSMM's predictor is for reconstruction alone: its
        authors' demo leaves it out, since two people's pictures have no background in common."""
        return self.background is not None and self.estimator.motion_kind != "splines"

    @property
    def disentangles(self) -> bool:
        """Whether the network tells a subject's shape from its pose, as `animate --mode avd` needs."""
        return isinstance(self.estimator, SplineEstimatorConfig) and bool(self.estimator.identity_width)
