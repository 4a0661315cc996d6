# The network of surroundocc.py on images without ground truth, as upstream's surroundocc_inference.py.
_base_ = './surroundocc.py'

model = dict(is_vis=True)  # upstream then writes point clouds instead of metrics; the network is the same

# A list replaces its base's as a whole, so the steps are all here; the one that loads ground truth is gone.
test_pipeline = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True),
    dict(type='NormalizeMultiviewImage', mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False),
    dict(type='PadMultiViewImage', size_divisor=32),
    dict(type='DefaultFormatBundle3D', with_label=False),
    dict(type='CustomCollect3D', keys=['img']),
]
