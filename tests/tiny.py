# The smallest network of this kind, for tests that export: 4 cameras, few and narrow layers, one deformable stage. Everything that a
# file must get right is in it: three levels, volumes higher than wide, images that are padded, voxels that two cameras see.
_base_ = "../projects/configs/surroundocc/surroundocc_micro.py"

occ_size = [16, 24, 8]  # x, y, z
image_size = [60, 96]  # padded to 64 x 96

_dim_ = [16, 16, 32]

model = {
    "img_backbone": {"stage_with_dcn": (False, False, False, True)},  # 3 deformable convolutions
    "img_neck": {"out_channels": 16},
    "pts_bbox_head": {
        "volume_h": [12, 6, 3],
        "volume_w": [8, 4, 2],
        "volume_z": [4, 2, 1],
        "embed_dims": _dim_,
        "img_channels": [16, 16, 16],
        "conv_input": [32, 16, 16, 16, 16, 16, 16],
        "conv_output": [16, 16, 16, 16, 16, 16, 16],
        "transformer_template": {
            "embed_dims": _dim_,
            "num_cams": 4,
            "encoder": {
                "num_layers": [1, 1, 2],
                "transformerlayers": {
                    "embed_dims": _dim_,
                    "feedforward_channels": [16, 16, 16],
                    "attn_cfgs": [
                        {
                            "type": "SpatialCrossAttention",
                            "num_cams": 4,
                            "embed_dims": _dim_,
                            "deformable_attention": {
                                "type": "MSDeformableAttention3D",
                                "embed_dims": _dim_,
                                "num_points": [2, 4, 8],
                                "num_levels": 1,
                            },
                        },
                    ],
                },
            },
        },
    },
}
