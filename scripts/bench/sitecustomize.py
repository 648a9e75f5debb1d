"""For .venv-peers: declares the operators that torchvision expects from a compiled part, which this build lacks.

nnunetv2 imports torchvision through timm and uses neither operator.
"""

try:
    import torch

    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width,"
        " int sampling_ratio, bool aligned) -> Tensor"
    )
except ImportError:
    pass
