// Batch norm over activations [groups, rows, c]: rows are the pixels of the images of a group.
//
// A block takes a chunk of a group's rows and a tile of channels. Its threads stand in `columns` columns
// of V channels each; those of a column share its rows. Chunks follow only from the shape, so sums have
// the same bits on every device.
#pragma once
#include "vector.cuh"

constexpr u32 BN_THREADS = 256;
// Of a block that adds up the sums of chunks.
constexpr u32 BN_SUM_THREADS = 1024;

enum class After { Nothing, Relu, AddRelu };

// How activations are cut; the same for all passes.
struct BnRows {
    u32 rows, chunk, c, columns;
};

// Where a thread works.
template <u32 V>
struct BnPlace {
    BnRows of;
    u32 group, groups;
    // Its first channel, and the first of the tile.
    u32 channel, tile;
    // Its place among the threads of its column.
    u32 lane, lanes;
    // The rows of the chunk; `first` is the thread's own.
    u32 begin, end, first;
    bool active;

    __device__ __forceinline__ explicit BnPlace(BnRows of) : of(of) {
        const u32 packs = of.c / V, tiles = (packs + of.columns - 1) / of.columns;
        groups = gridDim.y / tiles;
        group = blockIdx.y / tiles;
        const u32 first_column = blockIdx.y % tiles * of.columns;
        const u32 column = first_column + threadIdx.x % of.columns;
        tile = first_column * V;
        channel = column * V;
        lane = threadIdx.x / of.columns;
        lanes = blockDim.x / of.columns;
        begin = blockIdx.x * of.chunk;
        end = of.rows - begin < of.chunk ? of.rows : begin + of.chunk;
        first = begin + lane;
        active = lane < lanes && column < packs;
        if (!active) first = end;
    }

    __device__ __forceinline__ u64 at(u32 row) const {
        return (u64(group) * of.rows + row) * of.c + channel;
    }
    // Of coefficients [groups, c].
    __device__ __forceinline__ u32 coefficient() const { return group * of.c + channel; }
    // How many rows of the chunk a lane has.
    __device__ __forceinline__ u32 rows_of(u32 some_lane) const {
        const u32 n = end - begin;
        return n > some_lane ? (n - some_lane + lanes - 1) / lanes : 0;
    }
    // Two numbers of each channel in partial sums [groups, chunks, 2, c].
    __device__ __forceinline__ float* partial(float* all) const {
        return all + (u64(group) * gridDim.x + blockIdx.x) * 2 * of.c;
    }
};

// Σ n and Σ n·d², about a number near all means, from the moments of parts. In double nothing cancels.
struct Moments {
    double sum = 0.0, squares = 0.0;

    __device__ __forceinline__ void add(float about, float mean, float m2, u32 n) {
        const double d = double(mean) - double(about);
        sum += n * d;
        squares += m2 + n * d * d;
    }
    __device__ __forceinline__ double mean(float about, double n) const { return about + sum / n; }
    // Σ (x − mean)².
    __device__ __forceinline__ double m2(double n) const { return squares - sum * sum / n; }
};

// Two numbers of each thread and channel, for the threads that add them up.
template <u32 V>
__device__ __forceinline__ void hand_in(float (&shared)[2][BN_THREADS * V], const float (&a)[V],
                                        const float (&b)[V]) {
    for (u32 v = 0; v < V; v++) {
        shared[0][threadIdx.x * V + v] = a[v];
        shared[1][threadIdx.x * V + v] = b[v];
    }
    __syncthreads();
}

// Mean and Σ (x − mean)² of a chunk. Each thread measures from its first number: should that lie far from
// the rest, it adds to the result as well, and what cancels is at most its number of rows times that.
template <u32 V, class S>
__device__ void bn_moments_of(const S* __restrict__ x, float* __restrict__ partial, BnRows rows) {
    __shared__ float shared[2][BN_THREADS * V];
    const BnPlace<V> at(rows);
    float pivot[V] = {}, sum[V] = {}, squares[V] = {};
    const u32 n = at.active ? at.rows_of(at.lane) : 0;
    if (n > 0) read(x + at.at(at.first), pivot);
    UNROLL(4)
    for (u32 row = at.first; row < at.end; row += at.lanes) {
        float numbers[V];
        read(x + at.at(row), numbers);
        for (u32 v = 0; v < V; v++) {
            const float d = numbers[v] - pivot[v];
            sum[v] += d;
            squares[v] += d * d;
        }
    }
    const float share = n > 0 ? 1.0f / n : 0.0f;
    for (u32 v = 0; v < V; v++) {
        const float d = sum[v] * share;
        squares[v] -= sum[v] * d;
        sum[v] = pivot[v] + d;
    }
    hand_in(shared, sum, squares);
    const u32 width = rows.columns * V, i = threadIdx.x;
    if (i >= width || at.tile + i >= rows.c) return;
    Moments all;
    for (u32 lane = 0; lane < at.lanes; lane++) {
        const u32 j = lane * width + i;
        if (at.rows_of(lane) > 0) all.add(shared[0][i], shared[0][j], shared[1][j], at.rows_of(lane));
    }
    float* out = at.partial(partial) + at.tile + i;
    out[0] = float(all.mean(shared[0][i], at.end - at.begin));
    out[rows.c] = float(all.m2(at.end - at.begin));
}

// The normalization of V channels.
template <u32 V>
struct BnAffine {
    float mean[V], scale[V], shift[V];

    __device__ __forceinline__ BnAffine(const BnPlace<V>& at, const float* statistics,
                                        const float* gamma, const float* beta) {
        if (!at.active) return;
        const float* inv_std = statistics + u64(at.groups) * at.of.c;
        for (u32 v = 0; v < V; v++) {
            mean[v] = statistics[at.coefficient() + v];
            scale[v] = gamma[at.channel + v] * inv_std[at.coefficient() + v];
            shift[v] = beta[at.channel + v];
        }
    }
    // Fused by hand, so that the backward pass finds the same sign as the forward pass.
    __device__ __forceinline__ float operator()(float x, u32 v) const {
        return fmaf(x - mean[v], scale[v], shift[v]);
    }
};

template <After AFTER, u32 V, class S>
__device__ void bn_normalize_of(const S* __restrict__ x, const S* __restrict__ added,
                                S* __restrict__ y, const float* statistics, const float* gamma,
                                const float* beta, BnRows rows) {
    const BnPlace<V> at(rows);
    const BnAffine<V> affine(at, statistics, gamma, beta);
    UNROLL(2)
    for (u32 row = at.first; row < at.end; row += at.lanes) {
        float numbers[V], others[V];
        read(x + at.at(row), numbers);
        if (AFTER == After::AddRelu) read(added + at.at(row), others);
        for (u32 v = 0; v < V; v++) {
            float z = affine(numbers[v], v);
            if (AFTER == After::AddRelu) z += others[v];
            if (AFTER != After::Nothing) z = z < 0.0f ? 0.0f : z;
            numbers[v] = z;
        }
        write(y + at.at(row), numbers);
    }
}

// Σ g and Σ g·x̂ of a chunk, where g is the gradient of the normalization's output: `dy` where ReLU let
// its input through. After an addition that shows in y, and g is written: it is the gradient of what was
// added.
template <After AFTER, u32 V, class S>
__device__ void bn_gradient_sums_of(const S* __restrict__ x, const S* __restrict__ y,
                                    const S* __restrict__ dy, S* __restrict__ g,
                                    const float* statistics, const float* gamma, const float* beta,
                                    float* partial, BnRows rows) {
    __shared__ float shared[2][BN_THREADS * V];
    const BnPlace<V> at(rows);
    const BnAffine<V> affine(at, statistics, gamma, beta);
    float plain[V] = {}, products[V] = {};
    UNROLL(2)
    for (u32 row = at.first; row < at.end; row += at.lanes) {
        float numbers[V], gradients[V], outputs[V];
        read(x + at.at(row), numbers);
        read(dy + at.at(row), gradients);
        if (AFTER == After::AddRelu) read(y + at.at(row), outputs);
        for (u32 v = 0; v < V; v++) {
            if (AFTER == After::Relu) outputs[v] = affine(numbers[v], v);
            if (AFTER != After::Nothing && !(outputs[v] > 0.0f)) gradients[v] = 0.0f;
            plain[v] += gradients[v];
            products[v] += gradients[v] * (numbers[v] - affine.mean[v]);
        }
        if (AFTER == After::AddRelu) write(g + at.at(row), gradients);
    }
    hand_in(shared, plain, products);
    const u32 width = rows.columns * V, i = threadIdx.x;
    if (i >= width || at.tile + i >= rows.c) return;
    double sums[2] = {};
    for (u32 lane = 0; lane < at.lanes; lane++) {
        sums[0] += shared[0][lane * width + i];
        sums[1] += shared[1][lane * width + i];
    }
    const u64 of_group = (u64(at.groups) + at.group) * rows.c;
    float* out = at.partial(partial) + at.tile + i;
    out[0] = float(sums[0]);
    out[rows.c] = float(sums[1] * statistics[of_group + at.tile + i]);
}

// dx = γ/σ·(g − mean of g − x̂·mean of g·x̂), means [groups, 2, c].
template <After AFTER, u32 V, class S>
__device__ void bn_input_gradient_of(const S* __restrict__ x, const S* __restrict__ dy,
                                     S* __restrict__ dx, const float* statistics,
                                     const float* means, const float* gamma, const float* beta,
                                     BnRows rows) {
    const BnPlace<V> at(rows);
    const BnAffine<V> affine(at, statistics, gamma, beta);
    float plain[V], along[V];
    if (at.active) {
        const float* inv_std = statistics + u64(at.groups) * rows.c;
        const float* of_group = means + u64(at.group) * 2 * rows.c + at.channel;
        for (u32 v = 0; v < V; v++) {
            plain[v] = of_group[v];
            along[v] = of_group[rows.c + v] * inv_std[at.coefficient() + v];
        }
    }
    UNROLL(2)
    for (u32 row = at.first; row < at.end; row += at.lanes) {
        float numbers[V], gradients[V];
        read(x + at.at(row), numbers);
        read(dy + at.at(row), gradients);
        for (u32 v = 0; v < V; v++) {
            float g = gradients[v];
            if (AFTER == After::Relu && !(affine(numbers[v], v) > 0.0f)) g = 0.0f;
            gradients[v] =
                affine.scale[v] * (g - plain[v] - (numbers[v] - affine.mean[v]) * along[v]);
        }
        write(dx + at.at(row), gradients);
    }
}

// dx = γ/σ·g where mean and σ are constants, in evaluation mode; x is read for ReLU only.
template <After AFTER, u32 V, class S>
__device__ void bn_eval_gradient_of(const S* __restrict__ x, const S* __restrict__ dy,
                                    S* __restrict__ dx, const float* statistics, const float* gamma,
                                    const float* beta, BnRows rows) {
    const BnPlace<V> at(rows);
    const BnAffine<V> affine(at, statistics, gamma, beta);
    UNROLL(2)
    for (u32 row = at.first; row < at.end; row += at.lanes) {
        float numbers[V], gradients[V];
        if (AFTER == After::Relu) read(x + at.at(row), numbers);
        read(dy + at.at(row), gradients);
        for (u32 v = 0; v < V; v++) {
            const bool passes = AFTER != After::Relu || affine(numbers[v], v) > 0.0f;
            gradients[v] = passes ? affine.scale[v] * gradients[v] : 0.0f;
        }
        write(dx + at.at(row), gradients);
    }
}
