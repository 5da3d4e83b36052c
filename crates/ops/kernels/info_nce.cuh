// InfoNCE over a queue: cosines, softmax and the gradient's sums in one walk over the queue, without the
// N×K logits in memory. See src/gpu/info_nce.rs for the launches. What the queue is stored as is S.
//
// A block takes NCE_QUERIES queries, a part of the queue and, for the gradient, NCE_SLAB channels. Half a
// warp has four queries in both products, so that what is known of their softmax stays in registers.

#pragma once
#include "vector.cuh"

constexpr u32 NCE_QUERIES = 32;
constexpr u32 NCE_KEYS = 32;
constexpr u32 NCE_SLAB = 128;
constexpr u32 NCE_THREADS = 128;
// Threads that share four queries; each has two keys of a block and NCE_CHANNELS channels of a slab.
constexpr u32 NCE_LANES = 16;
constexpr u32 NCE_CHANNELS = NCE_SLAB / NCE_LANES;
// Numbers from a row of 32 to the next in shared memory: 16 bytes more than it holds, so that eight
// threads that read 16 bytes of eight rows meet all banks once.
constexpr u32 NCE_STRIDE = 36;

typedef Pack<float, 4> Four;
typedef Pack<float, 2> Two;

// A key's number as it is in a queue of this type.
template <class S>
__device__ __forceinline__ float nce_as_stored(float x) {
    S stored;
    store(&stored, x);
    return load(stored);
}

// Rows of `x` [n, c] from `first` on, rounded as if they were stored as S, as columns of `to`
// [NCE_SLAB, 32], channels from `channel` on; zeros where `x` ends.
template <class S>
__device__ __forceinline__ void nce_load_rows(const float* x, u32 n, u32 c, u32 first, u32 channel,
                                              float* to) {
    for (u32 i = threadIdx.x; i < NCE_QUERIES * NCE_SLAB; i += NCE_THREADS) {
        const u32 row = i / NCE_SLAB, column = i % NCE_SLAB;
        const bool is_inside = first + row < n && channel + column < c;
        to[column * NCE_STRIDE + row] =
            is_inside ? nce_as_stored<S>(x[u64(first + row) * c + channel + column]) : 0.0f;
    }
}

// Columns of the queue [c, k] from `first` on into `to` [NCE_SLAB, 32], channels from `channel` on; zeros
// where the queue ends.
template <class S>
__device__ __forceinline__ void nce_load_keys(const S* queue, u32 c, u64 k, u64 first, u32 channel,
                                              float* to) {
    // Four of either type: eight at a time would not fit into the registers next to the sums.
    constexpr u32 PACKS = NCE_KEYS / 4;
    const u64 alignment = 4 * sizeof(S);
    if (k % 4 == 0 && reinterpret_cast<u64>(queue) % alignment == 0 && first + NCE_KEYS <= k) {
#pragma unroll
        for (u32 pass = 0; pass < NCE_SLAB * PACKS / NCE_THREADS; pass++) {
            const u32 i = pass * NCE_THREADS + threadIdx.x, row = i / PACKS, column = i % PACKS * 4;
            float numbers[4] = {};
            if (channel + row < c) read(queue + (channel + row) * k + first + column, numbers);
            *reinterpret_cast<Four*>(to + row * NCE_STRIDE + column) = {
                {numbers[0], numbers[1], numbers[2], numbers[3]}};
        }
        return;
    }
    for (u32 i = threadIdx.x; i < NCE_SLAB * NCE_KEYS; i += NCE_THREADS) {
        const u32 row = i / NCE_KEYS, column = i % NCE_KEYS;
        const bool is_inside = channel + row < c && first + column < k;
        to[row * NCE_STRIDE + column] =
            is_inside ? load(queue[(channel + row) * k + first + column]) : 0.0f;
    }
}

// The cosines of four queries and two keys over all channels, in rising order of the channels whatever the
// keys are, positives too: equal keys give equal bits. `load(channel)` fills both operands.
template <class Load>
__device__ __forceinline__ void nce_cosines(u32 c, const float* queries, const float* keys, Load load,
                                            float (&cosines)[4][2]) {
    const float* query = queries + threadIdx.x / NCE_LANES * 4;
    const float* key = keys + threadIdx.x % NCE_LANES * 2;
#pragma unroll
    for (u32 i = 0; i < 4; i++) cosines[i][0] = cosines[i][1] = 0.0f;
    for (u32 channel = 0; channel < c; channel += NCE_SLAB) {
        // The last reader of shared memory is done.
        __syncthreads();
        load(channel);
        __syncthreads();
#pragma unroll 8
        for (u32 row = 0; row < NCE_SLAB; row++) {
            const Four a = *reinterpret_cast<const Four*>(query + row * NCE_STRIDE);
            const Two b = *reinterpret_cast<const Two*>(key + row * NCE_STRIDE);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                cosines[i][0] = fmaf(a.v[i], b.v[0], cosines[i][0]);
                cosines[i][1] = fmaf(a.v[i], b.v[1], cosines[i][1]);
            }
        }
    }
}

// sums += weights·keys for four queries and every NCE_LANES-th channel.
__device__ __forceinline__ void nce_accumulate(const float* weights, const float* keys,
                                               float (&sums)[4][NCE_CHANNELS]) {
    const float* weight = weights + threadIdx.x / NCE_LANES * 4;
    const float* row = keys + threadIdx.x % NCE_LANES * NCE_STRIDE;
    for (u32 first = 0; first < NCE_KEYS; first += 4) {
        Four a[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            a[j] = *reinterpret_cast<const Four*>(weight + (first + j) * NCE_STRIDE);
#pragma unroll
        for (u32 channel = 0; channel < NCE_CHANNELS; channel++) {
            const Four b =
                *reinterpret_cast<const Four*>(row + channel * NCE_LANES * NCE_STRIDE + first);
#pragma unroll
            for (u32 j = 0; j < 4; j++)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    sums[i][channel] = fmaf(a[j].v[i], b.v[j], sums[i][channel]);
        }
    }
}

// What a thread, or half a warp, knows of a query's softmax after some of the queue.
struct NceSoftmax {
    float positive;
    // Cosine that exponents are relative to: at first the positive's, then the largest seen when one
    // exceeded it by more than the slack.
    float reference;
    float sum, cosines, ahead;
};

// Takes in the cosines of a query's two keys, of which `n` exist, and turns them into weights
// e^((cosine − reference)/τ); returns the factor for sums that are relative to the reference before.
__device__ __forceinline__ float nce_weigh(NceSoftmax& query, float (&cosines)[2], u32 n,
                                           float per_temperature, float slack) {
    float largest = query.reference;
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
        if (j >= n) continue;
        largest = fmaxf(largest, cosines[j]);
        query.cosines += cosines[j];
        // What is not below it is ahead, NaN too.
        query.ahead += cosines[j] < query.positive ? 0.0f : 1.0f;
    }
#pragma unroll
    for (u32 d = NCE_LANES / 2; d > 0; d /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, d));
    float factor = 1.0f;
    if (largest - query.reference > slack) {
        factor = expf((query.reference - largest) * per_temperature);
        query.reference = largest;
        query.sum *= factor;
    }
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
        cosines[j] = j < n ? expf((cosines[j] - query.reference) * per_temperature) : 0.0f;
        query.sum += cosines[j];
    }
    return factor;
}

// The sum over the threads that share a query.
__device__ __forceinline__ float nce_shared_sum(float x) {
#pragma unroll
    for (u32 d = NCE_LANES / 2; d > 0; d /= 2) x += __shfl_xor_sync(ALL_LANES, x, d);
    return x;
}
