// The loops of pool.inc for any width of an access.
#pragma once
#include "vector.cuh"

// A pixel of [n, h, w, c] and the first of V channels, from a running index.
template <u32 V>
struct Pixel {
    u32 image, row, column, channel;

    __device__ __forceinline__ Pixel(u64 i, u32 h, u32 w, u32 c) {
        const u32 packs = c / V;
        const u64 pixel = i / packs;
        channel = u32(i - pixel * packs) * V;
        const u64 line = pixel / w;
        column = u32(pixel - line * w);
        image = u32(line / h);
        row = u32(line - u64(image) * h);
    }
};

// Where the channels of a pixel start.
__device__ __forceinline__ u64 at(u32 image, u32 row, u32 column, u32 channel, u32 h, u32 w, u32 c) {
    return ((u64(image) * h + row) * w + column) * c + channel;
}

template <u32 V, class S>
__device__ void max_pool_of(const S* __restrict__ x, S* __restrict__ y, u8* __restrict__ taps, u32 n,
                            u32 h, u32 w, u32 c, u32 ho, u32 wo) {
    const u64 all = u64(n) * ho * wo * (c / V);
    for (u64 i = first_index(); i < all; i += all_threads()) {
        const Pixel<V> out(i, ho, wo, c);
        // Row 2·row + tap − 1 of the input; the first that exists has tap 0 or, at the border, 1.
        const u32 first = out.row == 0 ? 3 : 0, first_tap = first + (out.column == 0 ? 1 : 0);
        float best[V];
        Pack<u8, V> best_tap;
        for (u32 v = 0; v < V; v++) {
            best[v] = -INFINITY;
            best_tap.v[v] = u8(first_tap);
        }
        for (u32 tap = 0; tap < 9; tap++) {
            // Below 0 is far beyond the image in unsigned numbers.
            const u32 row = 2 * out.row + tap / 3 - 1, column = 2 * out.column + tap % 3 - 1;
            if (row >= h || column >= w) continue;
            float numbers[V];
            read(x + at(out.image, row, column, out.channel, h, w, c), numbers);
            for (u32 v = 0; v < V; v++) {
                if (numbers[v] > best[v] || numbers[v] != numbers[v]) {
                    best[v] = numbers[v];
                    best_tap.v[v] = u8(tap);
                }
            }
        }
        write(y + i * V, best);
        *reinterpret_cast<Pack<u8, V>*>(taps + i * V) = best_tap;
    }
}

template <u32 V, class S>
__device__ void max_pool_backward_of(const u8* __restrict__ taps, const S* __restrict__ dy,
                                     S* __restrict__ dx, u32 n, u32 h, u32 w, u32 c, u32 ho, u32 wo) {
    const u64 all = u64(n) * h * w * (c / V);
    for (u64 i = first_index(); i < all; i += all_threads()) {
        const Pixel<V> in(i, h, w, c);
        float sum[V] = {};
        // An even row is the middle of one window; an odd one the end of one and the start of the next.
        for (u32 k = 0; k < 4; k++) {
            const u32 next_row = k / 2, next_column = k % 2;
            if ((next_row && in.row % 2 == 0) || (next_column && in.column % 2 == 0)) continue;
            const u32 row = in.row / 2 + next_row, column = in.column / 2 + next_column;
            if (row >= ho || column >= wo) continue;
            const u32 tap_row = in.row % 2 == 0 ? 1 : 2 - 2 * next_row;
            const u32 tap_column = in.column % 2 == 0 ? 1 : 2 - 2 * next_column;
            const u64 from = at(in.image, row, column, in.channel, ho, wo, c);
            float numbers[V];
            read(dy + from, numbers);
            const Pack<u8, V> of_window = *reinterpret_cast<const Pack<u8, V>*>(taps + from);
            for (u32 v = 0; v < V; v++)
                if (of_window.v[v] == 3 * tap_row + tap_column) sum[v] += numbers[v];
        }
        write(dx + i * V, sum);
    }
}

template <u32 V, class S>
__device__ void global_average_pool_of(const S* __restrict__ x, float* __restrict__ y, u32 n,
                                       u32 pixels, u32 c) {
    const u32 packs = c / V;
    for (u64 i = first_index(); i < u64(n) * packs; i += all_threads()) {
        const u64 image = i / packs;
        const S* from = x + image * pixels * c + (i - image * packs) * V;
        float sum[V] = {};
        UNROLL(4)
        for (u32 pixel = 0; pixel < pixels; pixel++) {
            float numbers[V];
            read(from + u64(pixel) * c, numbers);
            for (u32 v = 0; v < V; v++) sum[v] += numbers[v];
        }
        for (u32 v = 0; v < V; v++) y[i * V + v] = sum[v] / float(pixels);
    }
}

template <u32 V, class S>
__device__ void global_average_pool_backward_of(const float* __restrict__ dy, S* __restrict__ dx, u32 n,
                                                u32 pixels, u32 c) {
    const u32 packs = c / V;
    for (u64 i = first_index(); i < u64(n) * pixels * packs; i += all_threads()) {
        const u64 pixel = i / packs, image = pixel / pixels;
        const float* from = dy + image * c + (i - pixel * packs) * V;
        float numbers[V];
        for (u32 v = 0; v < V; v++) numbers[v] = from[v] / float(pixels);
        write(dx + i * V, numbers);
    }
}
