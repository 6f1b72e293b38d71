// What every guest program in this folder shares: types, the input buffer behind `alloc`, reading the
// input with checks, writing little-endian output behind `out_ptr` and `out_len`, and the four functions
// a C compiler may call without being asked. Freestanding, no imports. Include it once, define INPUT_MAX
// and OUTPUT_MAX (bytes) before, and write `init` and `step`.
//
// Everything lives in static buffers: memory never grows, so its size is part of the program.
#ifndef PROOFMILL_GUEST_H
#define PROOFMILL_GUEST_H

#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define STEP_MORE 0
#define STEP_DONE 1

// Ends the program with a trap: a deterministic outcome every worker reports alike, with no output.
static inline _Noreturn void trap(void) { __builtin_trap(); }

static inline void require(int condition) {
    if (!condition) trap();
}

void *memcpy(void *restrict to, const void *restrict from, unsigned long count) {
    uint8_t *t = to;
    const uint8_t *f = from;
    for (unsigned long i = 0; i < count; i++) t[i] = f[i];
    return to;
}

void *memset(void *to, int byte, unsigned long count) {
    uint8_t *t = to;
    for (unsigned long i = 0; i < count; i++) t[i] = (uint8_t)byte;
    return to;
}

void *memmove(void *to, const void *from, unsigned long count) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((uintptr_t)t <= (uintptr_t)f)
        for (unsigned long i = 0; i < count; i++) t[i] = f[i];
    else
        for (unsigned long i = count; i > 0; i--) t[i - 1] = f[i - 1];
    return to;
}

int memcmp(const void *left, const void *right, unsigned long count) {
    const uint8_t *l = left;
    const uint8_t *r = right;
    for (unsigned long i = 0; i < count; i++)
        if (l[i] != r[i]) return l[i] < r[i] ? -1 : 1;
    return 0;
}

static uint8_t input_buffer[INPUT_MAX] __attribute__((aligned(16)));
static uint32_t input_len;

// Where the host writes the input. It is called once, before `init`.
EXPORT(alloc) uint8_t *alloc(uint32_t len) {
    require(len <= INPUT_MAX);
    return input_buffer;
}

// Takes what the host passed to `init`, once it is known to be what `alloc` gave.
static inline void take_input(const uint8_t *ptr, uint32_t len) {
    require(ptr == input_buffer && len <= INPUT_MAX);
    input_len = len;
}

static uint8_t output_buffer[OUTPUT_MAX] __attribute__((aligned(16)));
static uint32_t output_len;

static inline void put_u8(uint8_t value) {
    require(output_len < OUTPUT_MAX);
    output_buffer[output_len++] = value;
}

static inline void put_u32(uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) put_u8((uint8_t)(value >> shift));
}

static inline void put_i32(int32_t value) { put_u32((uint32_t)value); }

EXPORT(out_ptr) const uint8_t *out_ptr(void) { return output_buffer; }
EXPORT(out_len) uint32_t out_len(void) { return output_len; }

#endif
