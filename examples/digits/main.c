// Reads handwritten digits with a small neural network in integers: 64 pixels, one hidden layer, ten
// scores; int8 weights, int32 sums, a right shift between the layers. train.py makes weights.h.
//
// Input: rows of 65 bytes, 64 pixels of 0 to 16 and the true digit, 1 to ROWS_MAX rows. Anything else traps.
//
// Output: rows u32, rows predicted right u32 (little endian), then one byte for each row, the digit
// predicted: the highest score, the lowest digit on a tie.
#define INPUT_MAX 65536
#define ROW_BYTES 65
#define ROWS_MAX (INPUT_MAX / ROW_BYTES)
#define OUTPUT_MAX (8 + ROWS_MAX)
#include "../guest.h"
#include "weights.h"

#include <wasm_simd128.h>

#define ROWS_PER_STEP 50

_Static_assert(PIXELS + 1 == ROW_BYTES, "a row is the pixels and the label");
_Static_assert(PIXELS % 8 == 0 && HIDDEN % 8 == 0, "dot takes eight values at a time");

static uint32_t rows, done, right;
static uint8_t predictions[ROWS_MAX];

// The sum of products of int8 values, eight at a time; `count` is a multiple of eight.
static int32_t dot(const int8_t *weights, const int8_t *values, int32_t count) {
    v128_t sum = wasm_i32x4_splat(0);
    for (int32_t i = 0; i < count; i += 8) {
        v128_t w = wasm_i16x8_load8x8(weights + i);
        v128_t v = wasm_i16x8_load8x8(values + i);
        sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(w, v));
    }
    return wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1) +
           wasm_i32x4_extract_lane(sum, 2) + wasm_i32x4_extract_lane(sum, 3);
}

static uint8_t predict(const int8_t pixels[PIXELS]) {
    int8_t hidden[HIDDEN];
    for (int32_t unit = 0; unit < HIDDEN; unit++) {
        int32_t sum = BIAS1[unit] + dot(WEIGHTS1[unit], pixels, PIXELS);
        sum = sum < 0 ? 0 : sum >> SHIFT;
        hidden[unit] = (int8_t)(sum > 127 ? 127 : sum);
    }
    uint8_t best = 0;
    int32_t best_score = INT32_MIN;
#pragma clang loop unroll(disable)
    for (uint8_t digit = 0; digit < CLASSES; digit++) {
        int32_t score = BIAS2[digit] + dot(WEIGHTS2[digit], hidden, HIDDEN);
        if (score > best_score) {
            best_score = score;
            best = digit;
        }
    }
    return best;
}

EXPORT(init) void init(const uint8_t *ptr, uint32_t len) {
    take_input(ptr, len);
    require(len > 0 && len % ROW_BYTES == 0);
    rows = len / ROW_BYTES;
    for (uint32_t row = 0; row < rows; row++) {
        const uint8_t *bytes = input_buffer + row * ROW_BYTES;
        for (int pixel = 0; pixel < PIXELS; pixel++) require(bytes[pixel] <= PIXEL_MAX);
        require(bytes[PIXELS] < CLASSES);
    }
}

EXPORT(step) int32_t step(void) {
    for (int n = 0; n < ROWS_PER_STEP && done < rows; n++, done++) {
        const uint8_t *bytes = input_buffer + done * ROW_BYTES;
        predictions[done] = predict((const int8_t *)bytes);
        right += predictions[done] == bytes[PIXELS];
    }
    if (done < rows) return STEP_MORE;
    put_u32(rows);
    put_u32(right);
    for (uint32_t row = 0; row < rows; row++) put_u8(predictions[row]);
    return STEP_DONE;
}
