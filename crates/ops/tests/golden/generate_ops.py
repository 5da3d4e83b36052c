"""Golden file of single operations, forward and backward, from PyTorch in f64: ops.safetensors. See README.md."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHARED = HERE.parents[3] / "tests" / "golden"
sys.path.insert(0, str(SHARED))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from formulas import fill, write  # noqa: E402

# name: N, C_in, H, W, C_out, kernel, stride, padding, dilation, groups
CONV2D = {
    "k1": (2, 5, 6, 7, 4, 1, 1, 0, 1, 1),
    "k1_s2_odd": (2, 4, 7, 5, 6, 1, 2, 0, 1, 1),
    "k1_s2_even": (2, 4, 6, 8, 3, 1, 2, 0, 1, 1),
    "k3": (2, 3, 7, 9, 4, 3, 1, 1, 1, 1),
    "k3_unpadded": (2, 2, 5, 6, 3, 3, 1, 0, 1, 1),
    "k3_s2_odd": (2, 3, 9, 7, 4, 3, 2, 1, 1, 1),
    "k3_s2_even": (2, 3, 8, 10, 4, 3, 2, 1, 1, 1),
    # The last row and column are never read: their gradient is zero.
    "k3_s2_remainder": (1, 2, 8, 6, 3, 3, 2, 0, 1, 1),
    "k7_s2_odd": (1, 3, 17, 15, 2, 7, 2, 3, 1, 1),
    "k7_s2_even": (2, 3, 16, 14, 2, 7, 2, 3, 1, 1),
    "k3_groups4": (2, 8, 6, 5, 8, 3, 1, 1, 1, 4),
    "k3_s2_groups4": (1, 4, 7, 6, 8, 3, 2, 1, 1, 4),
    "k3_dilation2": (2, 3, 9, 8, 4, 3, 1, 2, 2, 1),
    "k3_s2_dilation2_groups4": (1, 8, 9, 10, 4, 3, 2, 2, 2, 4),
    "k2_s2": (1, 2, 6, 4, 3, 2, 2, 0, 1, 1),
    "k3_image_of_one_pixel": (2, 3, 1, 1, 4, 3, 1, 1, 1, 1),
}

# name: N, C, H, W, groups, relu, residual
BATCH_NORM_TRAIN = {
    "plain": (4, 3, 5, 3, 1, 0, 0),
    "relu": (4, 3, 5, 3, 1, 1, 0),
    "add_relu": (4, 3, 5, 3, 1, 1, 1),
    "groups2": (4, 3, 3, 5, 2, 0, 0),
    "groups4_relu": (8, 2, 3, 3, 4, 1, 0),
    "groups2_add_relu": (6, 3, 3, 2, 2, 1, 1),
    "one_pixel": (5, 4, 1, 1, 1, 0, 0),
    "batch1": (1, 3, 4, 5, 1, 0, 0),
}

# name: N, C, H, W, relu, residual
BATCH_NORM_EVAL = {"plain": (2, 3, 4, 3, 0, 0), "relu": (2, 3, 4, 3, 1, 0), "add_relu": (2, 3, 4, 3, 1, 1)}

# name: N, C, H, W, whether values are rounded down to quarters so that windows tie
MAX_POOL2D = {"odd": (2, 3, 9, 7, 0), "even": (2, 2, 8, 6, 0), "ties": (2, 3, 7, 9, 1), "one_pixel": (2, 3, 1, 1, 0)}

# name: N, C, H, W
GLOBAL_AVG_POOL = {"odd": (2, 3, 5, 3), "one_pixel": (2, 3, 1, 1)}

# name: N, in, out
LINEAR = {"wide": (3, 7, 4), "batch1": (1, 5, 6)}

# name: N, C, K, temperature, what q, k and the queue are multiplied with
INFO_NCE = {
    "warm": (5, 6, 11, 0.2, 1.0),
    "cold": (5, 6, 11, 0.07, 1.0),
    # Logits in the thousands: only a log-sum-exp that subtracts the maximum survives.
    "huge": (4, 6, 9, 0.07, 10.0),
    "one_negative": (2, 3, 1, 0.5, 1.0),
}

BN_MOMENTUM, BN_EPS = 0.1, 1e-5
OUT = {}


def leaf(name, shape):
    """An input that gets a gradient."""
    return torch.from_numpy(fill(name, shape)).requires_grad_()


def given(name, shape):
    return torch.from_numpy(fill(name, shape))


def save(prefix, params, **outputs):
    """Parameters as int64 (or f64 when one is a fraction), outputs as f64."""
    OUT[f"{prefix}.params"] = np.array(params)
    for name, value in outputs.items():
        OUT[f"{prefix}.{name}"] = value.detach().contiguous().numpy()


def conv2d(name, params):
    n, c_in, height, width, c_out, kernel, stride, padding, dilation, groups = params
    prefix = f"conv2d.{name}"
    x = leaf(f"{prefix}.x", (n, c_in, height, width))
    w = leaf(f"{prefix}.w", (c_out, c_in // groups, kernel, kernel))
    y = F.conv2d(x, w, None, stride, padding, dilation, groups)
    y.backward(given(f"{prefix}.dy", y.shape))
    save(prefix, params, y=y, dx=x.grad, dw=w.grad)


def batch_norm_inputs(prefix, shape):
    channels = (shape[1],)
    gamma = (1.0 + 0.5 * given(f"{prefix}.gamma", channels)).requires_grad_()
    running_mean = 0.1 * given(f"{prefix}.running_mean", channels)
    running_var = 1.0 + 0.5 * given(f"{prefix}.running_var", channels)
    residual = leaf(f"{prefix}.residual", shape)
    return leaf(f"{prefix}.x", shape), gamma, leaf(f"{prefix}.beta", channels), residual, running_mean, running_var


def finish(prefix, y, relu, add, residual):
    """Adds, clips and runs backward; the residual's gradient when there is one."""
    if add:
        y = y + residual
    if relu:
        y = F.relu(y)
    y.backward(given(f"{prefix}.dy", y.shape))
    return {"y": y} | ({"dresidual": residual.grad} if add else {})


def batch_norm_train(name, params):
    n, c, height, width, groups, relu, add = params
    prefix = f"batch_norm_train.{name}"
    x, gamma, beta, residual, running_mean, running_var = batch_norm_inputs(prefix, (n, c, height, width))
    normalized, means, variances, running = [], [], [], []
    for chunk in x.chunk(groups):
        mean, var = running_mean.clone(), running_var.clone()
        normalized.append(F.batch_norm(chunk, mean, var, gamma, beta, True, BN_MOMENTUM, BN_EPS))
        running.append((mean, var))
        means.append(chunk.detach().mean((0, 2, 3)))
        variances.append(chunk.detach().var((0, 2, 3), unbiased=False))
    outputs = finish(prefix, torch.cat(normalized), relu, add, residual)
    save(
        prefix,
        params,
        **outputs,
        dx=x.grad,
        dgamma=gamma.grad,
        dbeta=beta.grad,
        running_mean=running[0][0],
        running_var=running[0][1],
        group_mean=torch.stack(means),
        group_var=torch.stack(variances),
    )


def batch_norm_eval(name, params):
    n, c, height, width, relu, add = params
    prefix = f"batch_norm_eval.{name}"
    x, gamma, beta, residual, running_mean, running_var = batch_norm_inputs(prefix, (n, c, height, width))
    y = F.batch_norm(x, running_mean, running_var, gamma, beta, False, BN_MOMENTUM, BN_EPS)
    outputs = finish(prefix, y, relu, add, residual)
    save(prefix, params, **outputs, dx=x.grad, dgamma=gamma.grad, dbeta=beta.grad)


def max_pool2d(name, params):
    n, c, height, width, ties = params
    prefix = f"max_pool2d.{name}"
    x = given(f"{prefix}.x", (n, c, height, width))
    if ties:
        x = torch.floor(4.0 * x) / 4.0
    x.requires_grad_()
    y = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    y.backward(given(f"{prefix}.dy", y.shape))
    save(prefix, params, y=y, dx=x.grad)


def global_avg_pool(name, params):
    prefix = f"global_avg_pool.{name}"
    x = leaf(f"{prefix}.x", params)
    y = F.adaptive_avg_pool2d(x, 1).flatten(1)
    y.backward(given(f"{prefix}.dy", y.shape))
    save(prefix, params, y=y, dx=x.grad)


def linear(name, params):
    n, width_in, width_out = params
    prefix = f"linear.{name}"
    x, w = leaf(f"{prefix}.x", (n, width_in)), leaf(f"{prefix}.w", (width_out, width_in))
    b = leaf(f"{prefix}.b", (width_out,))
    y = F.linear(x, w, b)
    y.backward(given(f"{prefix}.dy", y.shape))
    save(prefix, params, y=y, dx=x.grad, dw=w.grad, db=b.grad)


def l2_normalize():
    """Row 1 is zero, row 2 shorter than eps: both are divided by eps, and backward treats eps as a constant."""
    prefix, params = "l2_normalize.rows", (5, 6)
    x = given(f"{prefix}.x", params)
    x[1] = 0.0
    x[2] = x[2] * 2.0**-50
    x.requires_grad_()
    y = F.normalize(x, dim=1, eps=1e-12)
    y.backward(given(f"{prefix}.dy", params))
    save(prefix, params, y=y, dx=x.grad)


def info_nce(name, params):
    n, c, n_negatives, temperature, scale = params
    prefix = f"info_nce.{name}"
    q = (scale * given(f"{prefix}.q", (n, c))).requires_grad_()
    k, queue = scale * given(f"{prefix}.k", (n, c)), scale * given(f"{prefix}.queue", (c, n_negatives))
    l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(1)
    logits = torch.cat([l_pos, torch.einsum("nc,ck->nk", q, queue)], dim=1) / temperature
    loss = F.cross_entropy(logits, torch.zeros(n, dtype=torch.int64))
    loss.backward()
    save(prefix, params, logits=logits, loss=loss, dq=q.grad)


def main():
    torch.set_num_threads(1)
    tables = {
        conv2d: CONV2D,
        batch_norm_train: BATCH_NORM_TRAIN,
        batch_norm_eval: BATCH_NORM_EVAL,
        max_pool2d: MAX_POOL2D,
        global_avg_pool: GLOBAL_AVG_POOL,
        linear: LINEAR,
        info_nce: INFO_NCE,
    }
    for operation, cases in tables.items():
        for name, params in cases.items():
            operation(name, params)
    l2_normalize()
    metadata = {
        "bn_momentum": BN_MOMENTUM,
        "bn_eps": BN_EPS,
        "generator": "crates/ops/tests/golden/generate_ops.py",
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    write(HERE / "ops.safetensors", OUT, metadata, [SHARED / "formulas.py", HERE / "generate_ops.py"])


if __name__ == "__main__":
    main()
