#!/usr/bin/env python3
"""Trains the digit network, quantises it, and writes weights.h, weights.txt and input.bin.

The last 450 rows of digits.csv are never seen by training: they become the task's input.
The number of epochs and the other settings were chosen on rows 1078 to 1347 (`--validate`).

The same bytes come out on every machine: plain Python, no exponential or logarithm, and every
floating-point sum is taken in a written order (the built-in `sum` rounds differently since 3.12).
The loss is the squared hinge, one digit against the rest, which needs only + - * and comparison.
"""

import argparse
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
TRAIN_ROWS = 1347
VALIDATION_ROWS = 270
PIXELS = 64
PIXEL_MAX = 16
CLASSES = 10
HIDDEN = 64
EPOCHS = 30
RATE = 0.02
SEED = 1


def read_rows():
    """Rows of digits.csv as (64 pixels, label)."""
    rows = []
    for line in (HERE / "digits.csv").read_text().splitlines():
        values = [int(field) for field in line.split(",")]
        assert len(values) == PIXELS + 1 and max(values[:PIXELS]) <= PIXEL_MAX
        rows.append((values[:PIXELS], values[PIXELS]))
    return rows


def moved(pixels, right, down):
    """The image moved by whole pixels; what leaves the frame is lost."""
    image = [0] * PIXELS
    for y in range(8):
        for x in range(8):
            if 0 <= y - down < 8 and 0 <= x - right < 8:
                image[8 * y + x] = pixels[8 * (y - down) + x - right]
    return image


def forward(network, nonzero):
    """Hidden activations and the ten scores, in floating point."""
    weights1, bias1, weights2, bias2 = network
    hidden = bias1[:]
    for pixel, value in nonzero:
        hidden = [h + value * w for h, w in zip(hidden, weights1[pixel])]
    hidden = [h if h > 0.0 else 0.0 for h in hidden]
    scores = bias2[:]
    for unit, h in enumerate(hidden):
        if h > 0.0:
            scores = [s + h * w for s, w in zip(scores, weights2[unit])]
    return hidden, scores


def train(rows):
    """Stochastic gradient descent, one row at a time, the rate falling linearly to zero.

    Half of the time a row is shown moved by up to a pixel each way.
    """
    rng = random.Random(SEED)

    def start(count, width, scale):
        return [[(2.0 * rng.random() - 1.0) * scale for _ in range(width)] for _ in range(count)]

    weights1, bias1 = start(PIXELS, HIDDEN, 0.2), [0.0] * HIDDEN
    weights2, bias2 = start(HIDDEN, CLASSES, 0.3), [0.0] * CLASSES
    order = list(range(len(rows)))
    for epoch in range(EPOCHS):
        for last in range(len(order) - 1, 0, -1):
            other = int(rng.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
        speed = RATE * (1.0 - epoch / EPOCHS)
        for index in order:
            pixels, label = rows[index]
            if rng.random() < 0.5:
                pixels = moved(pixels, int(rng.random() * 3) - 1, int(rng.random() * 3) - 1)
            nonzero = [(p, v / PIXEL_MAX) for p, v in enumerate(pixels) if v]
            hidden, scores = forward((weights1, bias1, weights2, bias2), nonzero)
            slope = [0.0] * CLASSES
            for c, score in enumerate(scores):
                target = 1.0 if c == label else -1.0
                margin = 1.0 - target * score
                if margin > 0.0:
                    slope[c] = speed * target * margin
            bias2 = [b + s for b, s in zip(bias2, slope)]
            back = [0.0] * HIDDEN
            for unit, h in enumerate(hidden):
                if h > 0.0:
                    total = 0.0
                    for w, s in zip(weights2[unit], slope):
                        total += w * s
                    back[unit] = total
                    weights2[unit] = [w + h * s for w, s in zip(weights2[unit], slope)]
            bias1 = [b + d for b, d in zip(bias1, back)]
            for pixel, value in nonzero:
                weights1[pixel] = [w + value * d for w, d in zip(weights1[pixel], back)]
    return weights1, bias1, weights2, bias2


def largest(matrix):
    return max(abs(w) for line in matrix for w in line)


def quantise(network, rows):
    """The network in integers: int8 weights, int32 biases, one right shift between the layers.

    Weights come out unit by unit (the transpose of training's layout), as inference reads them.
    """
    weights1, bias1, weights2, bias2 = network
    scale1 = 127 / largest(weights1)
    w1 = [[round(line[unit] * scale1) for line in weights1] for unit in range(len(bias1))]
    b1 = [round(b * scale1 * PIXEL_MAX) for b in bias1]
    top = max(accumulate(line, pixels, b) for pixels, _ in rows for line, b in zip(w1, b1))
    shift = 0
    while top >> shift > 127:
        shift += 1
    scale2 = 127 / largest(weights2)
    w2 = [[round(line[c] * scale2) for line in weights2] for c in range(CLASSES)]
    b2 = [round(b * scale2 * scale1 * PIXEL_MAX / (1 << shift)) for b in bias2]
    return shift, w1, b1, w2, b2


def accumulate(weights, values, bias):
    return bias + sum(w * v for w, v in zip(weights, values))  # integers: exact in any order


def predict(quantised, pixels):
    """The digit with the highest score, the lowest digit on a tie."""
    shift, w1, b1, w2, b2 = quantised
    hidden = [min(max(accumulate(line, pixels, b), 0) >> shift, 127) for line, b in zip(w1, b1)]
    scores = [accumulate(line, hidden, b) for line, b in zip(w2, b2)]
    return scores.index(max(scores))


def count_right(quantised, rows):
    return sum(predict(quantised, pixels) == label for pixels, label in rows)


def write_header(quantised):
    """weights.h: what main.c includes."""
    shift, w1, b1, w2, b2 = quantised

    def line(values):
        return ", ".join(str(v) for v in values)

    def matrix(lines):
        return ",\n".join("    {" + line(values) + "}" for values in lines)

    (HERE / "weights.h").write_text(
        "// Written by train.py; do not edit.\n"
        f"#define PIXELS {PIXELS}\n#define PIXEL_MAX {PIXEL_MAX}\n"
        f"#define HIDDEN {HIDDEN}\n#define CLASSES {CLASSES}\n#define SHIFT {shift}\n\n"
        f"static const int8_t WEIGHTS1[HIDDEN][PIXELS] = {{\n{matrix(w1)}}};\n"
        f"static const int32_t BIAS1[HIDDEN] = {{{line(b1)}}};\n"
        f"static const int8_t WEIGHTS2[CLASSES][HIDDEN] = {{\n{matrix(w2)}}};\n"
        f"static const int32_t BIAS2[CLASSES] = {{{line(b2)}}};\n"
    )


def write_text(quantised):
    """weights.txt: the same numbers for any other reader, one list a line, named by its first word."""
    shift, w1, b1, w2, b2 = quantised
    lists = [("shift", [shift])]
    lists += [("weights1", line) for line in w1] + [("bias1", b1)]
    lists += [("weights2", line) for line in w2] + [("bias2", b2)]
    text = "".join(f"{name} {' '.join(str(v) for v in values)}\n" for name, values in lists)
    (HERE / "weights.txt").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--validate",
        action="store_true",
        help="train without the last 270 training rows, score them, write nothing",
    )
    validate = parser.parse_args().validate
    rows = read_rows()
    train_rows, task_rows = rows[:TRAIN_ROWS], rows[TRAIN_ROWS:]
    if validate:
        fit_rows, held_rows = train_rows[:-VALIDATION_ROWS], train_rows[-VALIDATION_ROWS:]
        right = count_right(quantise(train(fit_rows), fit_rows), held_rows)
        print(f"validation: {right} of {len(held_rows)}")
        return
    quantised = quantise(train(train_rows), train_rows)
    write_header(quantised)
    write_text(quantised)
    (HERE / "input.bin").write_bytes(
        b"".join(bytes(pixels) + bytes([label]) for pixels, label in task_rows)
    )
    print(f"training rows: {count_right(quantised, train_rows)} of {len(train_rows)}")
    print(f"task rows: {count_right(quantised, task_rows)} of {len(task_rows)}")


if __name__ == "__main__":
    main()
