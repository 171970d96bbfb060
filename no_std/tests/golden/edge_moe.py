"""Golden vectors of Edge-MoE's single-pass softmax and GELU, in Python integers.

Independent of the Rust code: written from the description (Sarkar et al., "Edge-MoE", arXiv 2305.18691, and the
behaviour of ap_fixed<32, 10>: floor on assignment, wrap on overflow). exp is the floor of the true value, from a
series with 256 fraction bits; the reciprocal is the floor of the true quotient.

    python3 no_std/tests/golden/edge_moe.py > no_std/tests/golden/edge_moe.txt
"""

import random

FRAC, WORK = 22, 256
ONE = 1 << FRAC


def wrap(v):
    """Into a signed 32-bit word."""
    return (v + (1 << 31)) % (1 << 32) - (1 << 31)


def exp_fixed(a):
    """floor(e^a) in Q10.22 for a <= 0 in Q10.22."""
    assert a <= 0
    # e^(|a|) has only positive terms; invert once.
    x = -a << (WORK - FRAC)
    term = total = 1 << WORK
    j = 1
    while term:
        term = (term * x >> WORK) // j
        total += term
        j += 1
    return (1 << (WORK + FRAC)) // total


def softmax(row):
    """(wrapped, sum, bias, recip, probabilities); `wrapped` tells whether the sum ever left its word."""
    s, b, wrapped = 0, -1 << 31, False
    for x in row:
        d = b - x
        if d < 0:
            # A first logit far above -512 wraps the argument, but it multiplies a sum of zero.
            exact = (s * exp_fixed(d) >> FRAC if s else 0) + ONE
            b = x
        else:
            exact = s + exp_fixed(-d)
        s = wrap(exact)
        wrapped |= s != exact
    r = wrap((1 << 2 * FRAC) // s)
    return wrapped, s, b, r, [wrap(exp_fixed(x - b) * r >> FRAC) for x in row]


def erf(x, digits=256):
    """erf of a fraction x = p/q given in WORK bits."""
    x2 = x * x >> WORK
    term, total, k = x, 0, 0
    while term:
        total += term
        k += 1
        term = term * x2 * 2 // (2 * k + 1) >> WORK
    t = e = 1 << WORK
    j = 1
    while t:
        t = (t * x2 >> WORK) // j
        e += t
        j += 1
    return (total << WORK) // e


def pi():
    """Machin's formula in WORK bits."""
    def atan_inv(n):
        total, term, k = 0, (1 << WORK) // n, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term //= n * n
            k += 2
        return total
    return 4 * (4 * atan_inv(5) - atan_inv(239))


def isqrt(v):
    from math import isqrt as root
    return root(v << WORK)


def gelu_table():
    """|x|(1 - Phi(|x|)) at 0, 1/32, ..., 5.5 with 22 fraction bits, rounded to nearest."""
    half_root = isqrt(1 << (WORK - 1))  # 1/sqrt 2
    scale = (2 << 2 * WORK) // isqrt(pi())
    table = []
    for i in range(177):
        x = (i << WORK) // 32
        tail = (1 << WORK) - (erf(x * half_root >> WORK) * scale >> WORK)
        table.append(((x * tail >> (WORK + 1)) + (1 << (WORK - FRAC - 1))) >> (WORK - FRAC))
    table[-1] = 0  # the gap is taken as zero from 5.5 on
    return table


def gelu(table, x):
    a = abs(x)
    if a >= 176 << 17:
        return max(x, 0)
    i, t = a >> 17, a & 0x1FFFF
    return max(x, 0) - (table[i] + ((table[i + 1] - table[i]) * t >> 17))


def main():
    rng = random.Random(20230529)

    def gauss(n, sigma):
        return [int(rng.gauss(0, sigma) * ONE) for _ in range(n)]

    rows = {
        "one": [0],
        "one_high": [400 * ONE + 77],
        "one_low": [-1 << 31],
        "rising": [i * ONE // 4 - 3 for i in range(40)],
        "falling": [-i * ONE // 4 + 5 for i in range(40)],
        "equal_129": [12345] * 129,
        "equal_511": [-ONE] * 511,
        "equal_512_wraps": [-ONE] * 512,
        "equal_700_wraps": [3] * 700,
        "gauss_1_129": gauss(129, 1.0),
        "gauss_3_197": gauss(197, 3.0),
        "gauss_8_64": gauss(64, 8.0),
        "near_512_wraps": [rng.randrange(0, 1 << 16) for _ in range(530)],
        "tiny_steps": [-(i * i) for i in range(100)],
        "extremes": [0, -1 << 31, 0, -16 * ONE, -15 * ONE],
    }
    for name, row in rows.items():
        wrapped, s, b, r, p = softmax(row)
        print("softmax", name, int(wrapped), s, b, r, len(row))
        print(*row)
        print(*p)
    table = gelu_table()
    print("gelu_table", len(table))
    print(*table)
    xs = [0, 1, -1, (1 << 31) - 1, -(1 << 31) + 1, 176 << 17, (176 << 17) - 1, -(176 << 17), 1 - (176 << 17)]
    xs += [rng.randrange(-7 * ONE, 7 * ONE) for _ in range(400)]
    print("gelu", len(xs))
    print(*xs)
    print(*[gelu(table, x) for x in xs])


main()
