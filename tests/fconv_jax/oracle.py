"""The formulas of F-Conv in plain NumPy, float64, as loops: slow, short and independent of `fconv_jax`.

Every function follows the written conventions of the PyTorch reference (channel = feature * t +
rotation, NCHW, OIHW); `fields` and `images` bring its arrays to this library's layout.
"""

import numpy as np


def candidates(k, t, p, mask):
    """The matrix A `[k k t, 2 p^2]` of masked cosines, then sines, at every pixel and rotation."""
    grid = np.linspace(-1, 1, k)
    frequency = np.array([(a - p if a > p / 2 else a) * np.pi * (p - 1) / p for a in range(p)])
    matrix = np.zeros((k, k, t, 2 * p * p))
    x, y = grid[None, :], grid[:, None]
    fade = fading(k, t, mask)
    for o in range(t):
        angle = 2 * np.pi * o / t
        rotated_x = np.cos(angle) * x - np.sin(angle) * y
        rotated_y = np.sin(angle) * x + np.cos(angle) * y
        for a in range(p):
            phase = frequency[a] * rotated_x[..., None] + frequency * rotated_y[..., None]
            matrix[:, :, o, a * p : (a + 1) * p] = np.cos(phase) * fade[..., None]
            matrix[:, :, o, p * p + a * p : p * p + (a + 1) * p] = np.sin(phase) * fade[..., None]
    return matrix.reshape(k * k * t, 2 * p * p)


def fading(k, t, mask):
    """The mask over a kernel's pixels, which does not rotate."""
    grid = np.linspace(-1, 1, k)
    if mask == "fading" and k <= 3:
        return np.exp(-(grid[None, :] ** 2)) * np.exp(-(grid[:, None] ** 2))
    if mask == "fading":  # of the distance from the centre in half pixels, k of them to the kernel's edge
        half_pixels = np.arange(-k + 1, k, 2)
        squares = (half_pixels[None, :] ** 2 + half_pixels[:, None] ** 2) / k**2
        return np.where(squares < 1, (1 - squares) ** 2, 0)
    excess = np.clip(grid[None, :] ** 2 + grid[:, None] ** 2 - 1, 0, None)
    if mask == "gaussian":
        return np.exp(-excess / 0.2)
    assert mask == "adaptive"
    if t == 4:
        return np.ones((k, k))
    return np.exp(-excess / 0.2) if k > 4 else np.exp(-excess / 2)


def functions(k, t, p, mask):
    """Orthonormal columns `[k k t, r]` in order of falling singular value, and S (all 2 p^2).

    From the singular vectors of A itself, not of its Gram matrix.
    """
    matrix = candidates(k, t, p, mask)
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    singular = np.zeros(2 * p * p)
    singular[: len(values)] = values**2
    return left[:, : np.sum(singular > 1e-4)], singular


def smoothing_weights(columns, k, t):
    """One weight for each column of `[k k t, r]`."""
    weights = []
    for column in columns.T:
        image = column.reshape(k, k, t)
        s = np.array([image[:, :, o].sum() ** 2 for o in range(t)])
        q = np.array([k * k * (image[:, :, o] ** 2).sum() for o in range(t)])
        v = (s.std() + q.std()) / (s + q).mean()
        weights.append(1 / (25 * max(v, 0.04)))
    return np.array(weights)


def bicubic(k, t):
    """B-Conv's functions `[k, k, t, k k]`: cubic(x' - i) cubic(y' - j) times the adaptive mask, one for each pixel."""
    half = k // 2
    fade = fading(k, t, "adaptive")
    values = np.zeros((k, k, t, k, k))
    for row in range(k):
        for column in range(k):
            x, y = column - half, row - half
            for o in range(t):
                angle = 2 * np.pi * o / t
                rotated_x = np.cos(angle) * x - np.sin(angle) * y
                rotated_y = np.sin(angle) * x + np.cos(angle) * y
                for j in range(-half, half + 1):
                    for i in range(-half, half + 1):
                        values[row, column, o, j + half, i + half] = (
                            keys_cubic(rotated_x - i) * keys_cubic(rotated_y - j) * fade[row, column]
                        )
    return values.reshape(k, k, t, k * k)


def keys_cubic(d):
    """Keys' convolution kernel with a = -1/2, as he wrote it."""
    a, d = -0.5, abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0


def expand(kind, weights, basis):
    """Filters OIHW of the reference from its `weights` (out, in, a, r) and `basis` (k, k, t, r)."""
    k, t = basis.shape[0], basis.shape[2]
    out_features, in_features = weights.shape[:2]
    rotated = {"lift": (t, 1), "reg": (t, t), "out": (1, t)}[kind]
    result = np.zeros((out_features * rotated[0], in_features * rotated[1], k, k))
    for m in range(out_features):
        for n in range(in_features):
            for o in range(t):
                for a in range(t):
                    if kind == "lift":
                        result[m * t + o, n] = basis[:, :, o] @ weights[m, n, 0]
                    elif kind == "reg":
                        result[m * t + o, n * t + a] = basis[:, :, o] @ weights[m, n, (a - o) % t]
                    else:
                        result[m, n * t + o] = basis[:, :, o] @ weights[m, n, 0]
    return result


def correlate(x, kernel, strides=1, padding=0):
    """Cross-correlation of `x` (b, h, w, n) with `kernel` (k, k, n, m)."""
    k = kernel.shape[0]
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (x.shape[1] - k) // strides + 1, (x.shape[2] - k) // strides + 1
    y = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * strides : i * strides + k, j * strides : j * strides + k]
            y[:, i, j] = np.einsum("buvn,uvnm->bm", window, kernel)
    return y


def images(nchw):
    """(b, c, h, w) -> `[b, h, w, c]`."""
    return np.transpose(nchw, (0, 2, 3, 1))


def fields(nchw, t):
    """(b, c * t, h, w) -> `[b, h, w, t, c]`."""
    b, channels, h, w = nchw.shape
    return np.transpose(nchw.reshape(b, channels // t, t, h, w), (0, 3, 4, 2, 1))


def kernel(oihw, kind, t):
    """A filter of the reference -> `[k, k, (t_in), in, (t_out), out]`."""
    in_rotations, out_rotations = {"lift": (1, t), "reg": (t, t), "out": (t, 1)}[kind]
    o, i, k, _ = oihw.shape
    split = oihw.reshape(o // out_rotations, out_rotations, i // in_rotations, in_rotations, k, k)
    full = np.transpose(split, (4, 5, 3, 2, 1, 0))
    shape = [k, k]
    shape += [in_rotations] * (kind != "lift") + [i // in_rotations]
    shape += [out_rotations] * (kind != "out") + [o // out_rotations]
    return full.reshape(shape)


def coefficients(weights, kind):
    """The reference's `weights` (out, in, a, r) -> `[in, out, r]`, or `[t, in, out, r]` for a group layer."""
    moved = np.transpose(weights, (2, 1, 0, 3))
    return moved if kind == "reg" else moved[0]
