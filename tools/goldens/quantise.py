"""Weight formats written from their rules, apart from the project's own code: the other opinion.

All functions take and give float32 tensors [out, in] unless said otherwise.
"""

import torch

E4M3_MAX, E2M1_MAX, BLOCK, GROUP = 448.0, 6.0, 128, 16
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def fp8_block(weight, scale_dtype):
    """Blocks of 128 x 128, ragged at the edges. Returns (e4m3 weight, scale, dequantised)."""
    rows, cols = weight.shape
    scale = torch.empty(-(-rows // BLOCK), -(-cols // BLOCK))
    quantised = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
    dequantised = torch.empty(rows, cols)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            s = (weight[at].abs().max().clamp(min=1e-12) / E4M3_MAX).to(scale_dtype).float()
            q = (weight[at] / s).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
            scale[i, j], quantised[at], dequantised[at] = s, q, q.float() * s
    return quantised, scale.to(scale_dtype), dequantised


def nvfp4(weight, global_scale=None):
    """Groups of 16 columns. Returns (packed u8 [out, in/2], e4m3 group scale, global scale, dequantised).

    The low nibble is the even column. global_scale: amax / (6 * 448) of this tensor when None.
    """
    rows, cols = weight.shape
    if global_scale is None:
        global_scale = weight.abs().max() / (E2M1_MAX * E4M3_MAX)
    groups = weight.reshape(rows, cols // GROUP, GROUP)
    scale = (groups.abs().amax(-1) / E2M1_MAX / global_scale).clamp(max=E4M3_MAX)
    scale = scale.to(torch.float8_e4m3fn)
    step = (scale.float() * global_scale)[..., None]
    ratio = torch.where(step > 0, groups / step, torch.zeros_like(groups))
    code = (ratio.abs()[..., None] - _E2M1).abs().argmin(-1)
    dequantised = (_E2M1[code] * ratio.sign() * step).reshape(rows, cols)
    nibble = (code + 8 * (ratio < 0)).to(torch.uint8).reshape(rows, cols // 2, 2)
    packed = nibble[..., 0] | (nibble[..., 1] << 4)
    return packed, scale, global_scale.float(), dequantised
