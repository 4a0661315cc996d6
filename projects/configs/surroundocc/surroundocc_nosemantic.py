# Occupied or empty, without classes: each output has one channel, as upstream's surroundocc_nosemantic.py.
_base_ = './surroundocc.py'

use_semantic = False  # in all three places
model = dict(
    use_semantic=use_semantic,
    pts_bbox_head=dict(use_semantic=use_semantic),  # num_classes=17 stays in the config and has no effect
)

# A list replaces its base's as a whole, so the steps are all here; ground truth is loaded without its classes.
test_pipeline = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True),
    dict(type='LoadOccupancy', use_semantic=use_semantic),
    dict(type='NormalizeMultiviewImage', mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False),
    dict(type='PadMultiViewImage', size_divisor=32),
    dict(type='DefaultFormatBundle3D', with_label=False),
    dict(type='CustomCollect3D', keys=['img', 'gt_occ']),
]
