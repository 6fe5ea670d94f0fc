"""Figures that the paper prints, quoted, to stand beside measured ones."""

# Table 2. AKD and MKR of bodies by OpenPose, of faces by face-alignment; AED of faces by OpenFace, of bodies by a
# re-identification network; L1 of RGB in [0, 1].
TABLE_2 = {
    "TaiChiHD": {
        "FOMM": {"l1": 0.057, "akd": 6.649, "mkr": 0.036, "aed": 0.172},
        "MRAA": {"l1": 0.048, "akd": 5.246, "mkr": 0.024, "aed": 0.150},
        "Motion Transformer": {"l1": 0.045, "akd": 4.670, "mkr": 0.021, "aed": 0.148},
    },
    "TED-talks": {
        "FOMM": {"l1": 0.029, "akd": 4.382, "mkr": 0.008, "aed": 0.127},
        "MRAA": {"l1": 0.027, "akd": 3.955, "mkr": 0.007, "aed": 0.118},
        "Motion Transformer": {"l1": 0.026, "akd": 3.456, "mkr": 0.007, "aed": 0.113},
    },
    "VoxCeleb": {
        "FOMM": {"l1": 0.041, "akd": 1.29, "aed": 0.133},
        "MRAA": {"l1": 0.040, "akd": 1.28, "aed": 0.133},
        "Motion Transformer": {"l1": 0.038, "akd": 1.18, "aed": 0.116},
    },
    "MGIF": {
        "FOMM": {"l1": 0.0224},
        "MRAA": {"l1": 0.0274},
        "Motion Transformer": {"l1": 0.0200},
    },
}
REMARK = "quoted from the paper's Table 2: full-size networks, other clips, other detectors"
_SUBJECTS = {"faces": ["VoxCeleb"], "bodies": ["TaiChiHD", "TED-talks"]}


def table_2_for(subject: str | None) -> dict[str, dict[str, float]]:
    """The rows of Table 2 about such subjects, by `data set, method`; about MGIF's animals where none is known."""
    rows: dict[str, dict[str, float]] = {}
    for dataset in _SUBJECTS.get(subject or "", ["MGIF"]):
        rows |= {f"{dataset}, {method}": figures for method, figures in TABLE_2[dataset].items()}
    return rows
