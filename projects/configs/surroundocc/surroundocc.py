# SurroundOcc on nuScenes, the official network: six cameras to 17 classes on 200 x 200 x 16 voxels.
# The same settings as upstream's projects/configs/surroundocc/surroundocc.py, without those of training. This file is parsed as data.
# Lists of three hold one value for each level of image features, fine to coarse (strides 8, 16, 32).

# x, y, z from; x, y, z to; in metres, in the LiDAR frame. One output voxel is 0.5 m wide and high.
point_cloud_range = [-50, -50, -5.0, 50, 50, 3.0]
occ_size = [200, 200, 16]  # voxels of the finest output along x, y, z: twice the finest volume below
use_semantic = True  # False: one channel, occupied or not
class_names = [  # classes 1 to 16; class 0 is empty space
    'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian', 'traffic_cone', 'trailer', 'truck',
    'driveable_surface', 'other_flat', 'sidewalk', 'terrain', 'manmade', 'vegetation',
]
image_size = [900, 1600]  # height and width of a synthetic frame, before padding; occport's own setting

# Images stay BGR and keep their scale; Caffe's ResNet wants nothing but the mean taken off.
img_norm_cfg = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)

_dim_ = [128, 256, 512]  # width of the voxel queries
_fpn_dim_ = 512  # width of the image features

model = dict(
    type='SurroundOcc',
    use_grid_mask=True,  # training only
    use_semantic=use_semantic,
    img_backbone=dict(
        type='ResNet',
        depth=101,  # or 50
        num_stages=4,
        out_indices=(1, 2, 3),  # the last three stages go to the neck
        frozen_stages=1,  # training only
        norm_cfg=dict(type='BN2d', requires_grad=False),
        norm_eval=True,
        style='caffe',  # the stride sits in a block's first 1x1 convolution
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),  # 23 + 3 deformable convolutions at depth 101
    ),
    img_neck=dict(
        type='FPN',
        in_channels=[512, 1024, 2048],
        out_channels=_fpn_dim_,
        start_level=0,
        add_extra_convs='on_output',  # without effect: three levels in, three out
        num_outs=3,
        relu_before_extra_convs=True,  # without effect, as above
    ),
    pts_bbox_head=dict(
        type='OccHead',
        volume_h=[100, 50, 25],  # voxels along y; the decoder doubles from level to level, so these must halve
        volume_w=[100, 50, 25],  # along x
        volume_z=[8, 4, 2],
        num_query=900,  # without effect: each voxel is a query
        num_classes=17,  # 16 and empty
        # Seven 3D blocks from the coarsest volume to the output, every second one doubling the size. Behind the first and the
        # second doubling the next finer volume is added, so their widths are that level's.
        conv_input=[_dim_[2], 256, _dim_[1], 128, _dim_[0], 64, 64],
        conv_output=[256, _dim_[1], 128, _dim_[0], 64, 64, 32],
        upsample_strides=[1, 2, 1, 2, 1, 2, 1],
        out_indices=[0, 2, 4, 6],  # blocks behind which occupancy is read out: 25, 50, 100 and 200 voxels wide
        embed_dims=_dim_,
        img_channels=[_fpn_dim_, _fpn_dim_, _fpn_dim_],
        use_semantic=use_semantic,
        transformer_template=dict(
            type='PerceptionTransformer',
            embed_dims=_dim_,
            encoder=dict(
                type='OccEncoder',
                num_layers=[1, 3, 6],  # 10 deformable attentions in all
                pc_range=point_cloud_range,
                return_intermediate=False,
                transformerlayers=dict(
                    type='OccLayer',
                    attn_cfgs=[
                        dict(
                            type='SpatialCrossAttention',
                            pc_range=point_cloud_range,
                            deformable_attention=dict(
                                type='MSDeformableAttention3D',
                                embed_dims=_dim_,
                                num_points=[2, 4, 8],  # samples for each voxel, camera and head (8 heads unless num_heads says else)
                                num_levels=1,  # a level attends to its own feature map only
                            ),
                            embed_dims=_dim_,
                        ),
                    ],
                    feedforward_channels=[256, 512, 1024],
                    ffn_dropout=0.1,  # training only
                    embed_dims=_dim_,
                    conv_num=2,  # 3D convolutions at the end of each layer
                    operation_order=('cross_attn', 'norm', 'ffn', 'norm', 'conv'),
                ),
            ),
        ),
    ),
)

test_pipeline = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True),
    dict(type='LoadOccupancy', use_semantic=use_semantic),
    dict(type='NormalizeMultiviewImage', **img_norm_cfg),
    dict(type='PadMultiViewImage', size_divisor=32),  # behind normalisation: 900 rows become 928, the new ones zero
    dict(type='DefaultFormatBundle3D', class_names=class_names, with_label=False),
    dict(type='CustomCollect3D', keys=['img', 'gt_occ']),
]
