"""Codes for what a segment shows: SNOMED CT for common organs, the codes that a user gives, or a private one."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError, join_problems
from pipeline.plugin import Settings

PRIVATE_SCHEME = "99PIPELINE"
"""Coding scheme of classes that no table knows: names beginning with 99 are free to use (PS3.16, section 8)."""


class Code(Settings):
    """A concept of a coding scheme."""

    value: str = Field(min_length=1, max_length=16)
    scheme: str = Field(default="SCT", min_length=1, max_length=16)
    """`SCT` for SNOMED CT, `DCM`, `FMA` ..."""
    meaning: str = Field(min_length=1, max_length=64)


ORGAN = Code(value="123037004", meaning="Anatomical structure")
ABNORMAL = Code(value="49755003", meaning="Morphologically abnormal structure")
LEFT, RIGHT = Code(value="7771000", meaning="Left"), Code(value="24028007", meaning="Right")


class SegmentCode(Settings):
    """What a segment shows, in the three parts that DICOM asks for."""

    type: Code
    """The organ or finding."""
    category: Code = ORGAN
    """Whether it is one of the body or one that should not be there."""
    side: Code | None = None
    """Left or right, where the type alone does not say so."""


_ORGANS = {
    "adrenal gland": ("23451007", "Adrenal gland"),
    "aorta": ("15825003", "Aorta"),
    "brain": ("12738006", "Brain"),
    "clavicle": ("51299004", "Clavicle"),
    "colon": ("71854001", "Colon"),
    "duodenum": ("38848004", "Duodenum"),
    "esophagus": ("32849002", "Esophagus"),
    "femur": ("71341001", "Femur"),
    "gallbladder": ("28231008", "Gallbladder"),
    "heart": ("80891009", "Heart"),
    "hip": ("29836001", "Hip"),
    "hippocampus": ("5366008", "Hippocampus"),
    "humerus": ("85050009", "Humerus"),
    "inferior vena cava": ("64131007", "Inferior vena cava"),
    "kidney": ("64033007", "Kidney"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "pancreas": ("15776009", "Pancreas"),
    "portal vein": ("32764006", "Portal vein"),
    "prostate": ("41216001", "Prostate"),
    "pulmonary artery": ("81040000", "Pulmonary artery"),
    "pulmonary vein": ("122972007", "Pulmonary vein"),
    "rib": ("113197003", "Rib"),
    "sacrum": ("54735007", "Sacrum"),
    "scapula": ("79601000", "Scapula"),
    "skull": ("89546000", "Skull"),
    "small intestine": ("30315005", "Small intestine"),
    "spinal cord": ("2748008", "Spinal cord"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "superior vena cava": ("48345005", "Superior vena cava"),
    "thyroid": ("69748006", "Thyroid"),
    "trachea": ("44567001", "Trachea"),
    "urinary bladder": ("89837001", "Bladder"),
    "uterus": ("35039007", "Uterus"),
    "vertebra": ("51282000", "Vertebra"),
}
_ABNORMAL = {
    "cyst": ("367643001", "Cyst"),
    "edema": ("79654002", "Edema"),
    "lesion": ("52988006", "Lesion"),
    "mass": ("4147007", "Mass"),
    "necrosis": ("6574001", "Necrosis"),
    "nodule": ("27925004", "Nodule"),
    "tumor": ("108369006", "Neoplasm"),
}
_OTHER_NAMES = {
    "bladder": "urinary bladder", "oesophagus": "esophagus", "thyroid gland": "thyroid", "tumour": "tumor",
    "neoplasm": "tumor", "oedema": "edema", "small bowel": "small intestine", "ivc": "inferior vena cava",
    "postcava": "inferior vena cava", "gall bladder": "gallbladder", "adrenal": "adrenal gland",
}  # fmt: skip


def code_of(name: str, given: Mapping[str, SegmentCode] | None = None) -> SegmentCode:
    """Return the codes of a class: those given for it, else SNOMED's for a common organ or finding, else private ones.

    Args:
        name: Of the class; `left_kidney` and `kidney-right` are understood, case does not matter.
        given: Class name -> codes of the user's.
    """
    if given and name in given:
        return given[name]
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    sides = {"left": LEFT, "l": LEFT, "right": RIGHT, "r": RIGHT}
    side = next((sides[word] for word in words if word in sides), None)
    bare = " ".join(word for word in words if word not in sides)
    plain = _OTHER_NAMES.get(bare, bare)
    for table, category in ((_ORGANS, ORGAN), (_ABNORMAL, ABNORMAL)):
        if plain in table:
            value, meaning = table[plain]
            return SegmentCode(type=Code(value=value, meaning=meaning), category=category, side=side)
    return SegmentCode(type=Code(value=_short(name), scheme=PRIVATE_SCHEME, meaning=name[:64]))


def parse_codes(tree: Mapping[str, Any], where: str) -> dict[str, SegmentCode]:
    """Turn `{liver: {type: {value: "10200004", meaning: Liver}}}` into checked codes by class name.

    Raises:
        ConfigError: with every problem at once.
    """
    found, problems = {}, []
    for name, value in tree.items():
        try:
            found[str(name)] = SegmentCode.model_validate(value)
        except ValidationError as error:
            problems += [f"{name}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    if problems:
        raise ConfigError(join_problems(where, problems))
    return found


def codes_of(metadata: Mapping[str, Any]) -> dict[str, SegmentCode]:
    """Return the codes that the metadata of a data set gives under `codes`, by class name; empty where it gives none.

    Raises:
        ConfigError: as `parse_codes`.
    """
    tree = metadata.get("codes") or {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"metadata.codes: found {type(tree).__name__}; expected class names with their codes.")
    return parse_codes(tree, "metadata.codes")


def _short(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:16] or "class"
