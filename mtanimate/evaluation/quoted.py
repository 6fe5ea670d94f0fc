"""Figures that the paper prints, quoted, to stand beside measured ones."""

# Table 2. AKD and MKR of bodies by OpenPose, of faces by face-alignment; AED of faces by OpenFace, of bodies by a
# re-identification network; L1 of RGB in [0, 1]. The paper describes AKD, MKR and AED in words. Its tables go
# on those of FOMM and MRAA, so that they are taken for figures of the public scripts that evaluate those.
TABLE_2 = {
    "TaiChiHD": {
        "FOMM": {"l1": 0.057, "akd_field": 6.649, "mkr_field": 0.036, "aed_field": 0.172},
        "MRAA": {"l1": 0.048, "akd_field": 5.246, "mkr_field": 0.024, "aed_field": 0.150},
        "Motion Transformer": {"l1": 0.045, "akd_field": 4.670, "mkr_field": 0.021, "aed_field": 0.148},
    },
    "TED-talks": {
        "FOMM": {"l1": 0.029, "akd_field": 4.382, "mkr_field": 0.008, "aed_field": 0.127},
        "MRAA": {"l1": 0.027, "akd_field": 3.955, "mkr_field": 0.007, "aed_field": 0.118},
        "Motion Transformer": {"l1": 0.026, "akd_field": 3.456, "mkr_field": 0.007, "aed_field": 0.113},
    },
    "VoxCeleb": {
        "FOMM": {"l1": 0.041, "akd_field": 1.29, "aed_field": 0.133},
        "MRAA": {"l1": 0.040, "akd_field": 1.28, "aed_field": 0.133},
        "Motion Transformer": {"l1": 0.038, "akd_field": 1.18, "aed_field": 0.116},
    },
    "MGIF": {
        "FOMM": {"l1": 0.0224},
        "MRAA": {"l1": 0.0274},
        "Motion Transformer": {"l1": 0.0200},
    },
}
REMARK = (
    "quoted from the paper's Table 2: full-size networks, other clips, other detectors; taken for the field's figures, "
    "by a reading of its public scripts"
)
_SUBJECTS = {"faces": ["VoxCeleb"], "bodies": ["TaiChiHD", "TED-talks"]}


def table_2_for(subject: str | None) -> dict[str, dict[str, float]]:
    """The rows of Table 2 about such subjects, by `data set, method`; about MGIF's animals where none is known."""
    rows: dict[str, dict[str, float]] = {}
    for dataset in _SUBJECTS.get(subject or "", ["MGIF"]):
        rows |= {f"{dataset}, {method}": figures for method, figures in TABLE_2[dataset].items()}
    return rows
