# A cut of surroundocc.py with everything in it and 28 M instead of 180 M parameters: for tests, and for a first look at a compiler.
# Volumes have a height other than their width on purpose, so that a swapped axis shows.
_base_ = './surroundocc.py'

occ_size = [32, 40, 8]  # x, y, z: twice the finest volume's w, h, z
image_size = [126, 224]  # not a multiple of 32 on purpose: padded to 128 x 224

_dim_ = [32, 64, 128]

model = dict(
    img_backbone=dict(depth=50),  # 6 + 3 deformable convolutions
    img_neck=dict(out_channels=128),
    pts_bbox_head=dict(
        volume_h=[20, 10, 5],
        volume_w=[16, 8, 4],
        volume_z=[4, 2, 1],
        embed_dims=_dim_,
        img_channels=[128, 128, 128],
        conv_input=[_dim_[2], 64, _dim_[1], 32, _dim_[0], 32, 32],
        conv_output=[64, _dim_[1], 32, _dim_[0], 32, 32, 16],
        transformer_template=dict(
            embed_dims=_dim_,
            encoder=dict(
                num_layers=[1, 2, 2],
                transformerlayers=dict(
                    embed_dims=_dim_,
                    feedforward_channels=[64, 128, 256],
                    attn_cfgs=[  # a list replaces its base's as a whole
                        dict(
                            type='SpatialCrossAttention',
                            embed_dims=_dim_,
                            deformable_attention=dict(
                                type='MSDeformableAttention3D', embed_dims=_dim_, num_points=[2, 4, 8], num_levels=1,
                            ),
                        ),
                    ],
                ),
            ),
        ),
    ),
)
