// Pillow's arithmetic on the colors of one pixel.
//
// Products whose sums are rounded separately on the CPU go through functions that are never fused.
#pragma once
#include "base.cuh"

struct Rgb {
    u32 r, g, b;
};

__device__ __forceinline__ Rgb load_pixel(const u8* from) { return {from[0], from[1], from[2]}; }
__device__ __forceinline__ void store_pixel(u8* to, Rgb pixel) {
    to[0] = u8(pixel.r);
    to[1] = u8(pixel.g);
    to[2] = u8(pixel.b);
}

// ITU-R 601-2 in 16-bit fixed point (Convert.c, L24).
__device__ __forceinline__ u32 luma(Rgb p) {
    return (p.r * 19595u + p.g * 38470u + p.b * 7471u + 0x8000u) >> 16;
}

// Image.blend: truncated, and clamped where a factor over 1 extrapolates.
__device__ __forceinline__ u32 blend(u32 from, u32 to, float factor) {
    const float step = __fmul_rn(factor, float(int(to) - int(from)));
    float mixed = __fadd_rn(float(from), step);
    mixed = mixed < 0.0f ? 0.0f : mixed;
    mixed = mixed > 255.0f ? 255.0f : mixed;
    return u32(mixed);
}
__device__ __forceinline__ Rgb blend(u32 from, Rgb to, float factor) {
    return {blend(from, to.r, factor), blend(from, to.g, factor), blend(from, to.b, factor)};
}

// C's round of value·share, a number from 0 to 255.
__device__ __forceinline__ u32 rounded_share(double value, double share) {
    return u32(__dadd_rn(__dmul_rn(value, share), 0.5));
}

// Turns the hue by 255ths through u8 HSV and back (Convert.c, rgb2hsv_row and hsv2rgb), float and double
// mixed as there.
__device__ __forceinline__ Rgb turn_hue(Rgb p, u32 turn) {
    const u32 max = p.r >= p.g && p.r >= p.b ? p.r : p.g >= p.b ? p.g : p.b;
    const u32 min = p.r <= p.g && p.r <= p.b ? p.r : p.g <= p.b ? p.g : p.b;
    // Grays have no saturation, and stay.
    if (max == min) return p;
    const float range = float(max - min);
    const u32 saturation = u32(double(range / float(max)) * 255.0);
    const bool is_r = p.r == max, is_g = !is_r && p.g == max;
    const double third = is_r ? 0.0 : is_g ? 2.0 : 4.0;
    const u32 next = is_r ? p.b : is_g ? p.r : p.g, last = is_r ? p.g : is_g ? p.b : p.r;
    const double below_next = double(float(max - next) / range);
    const double below_last = double(float(max - last) / range);
    const float sixths = float(third + below_next - below_last);
    const double turns = double(sixths) / 6.0 + 1.0;
    const float hue = float(turns >= 1.0 ? turns - 1.0 : turns);

    const u32 turned = (u32(double(hue) * 255.0) + turn) & 255;
    const double position = double(turned) * 6.0 / 255.0;
    const u32 sector = u32(position);
    const float fraction = float(position - double(sector));
    const float share = float(double(saturation) / 255.0);
    const u32 low = rounded_share(max, 1.0 - double(share));
    const u32 falling = rounded_share(max, 1.0 - double(__fmul_rn(share, fraction)));
    const double rest = __dmul_rn(double(share), 1.0 - double(fraction));
    const u32 rising = rounded_share(max, __dadd_rn(1.0, -rest));
    switch (sector % 6) {
        case 0: return {max, rising, low};
        case 1: return {falling, max, low};
        case 2: return {low, max, rising};
        case 3: return {low, falling, max};
        case 4: return {rising, low, max};
        default: return {max, low, falling};
    }
}
