"""TenSEAL (through its SEAL bindings) and desilofhe on the primitives and the head of `run`.

    peers.py inputs FILE N D      writes a head's inputs
    peers.py seal|desilo FILE     a name and a number a line; milliseconds of processor time

The head is the one of docs/he.md in the form that these libraries can run: every shift of K and V
in real slots, x⁴ by two squarings, and 1/s = Π (1 + e^(2^i)), e = 1 − s (Goldschmidt).
"""

import math
import statistics
import sys
import time

import numpy as np

LEVELS = 18
SCALE = 2.0**40


def inputs(path, n, d):
    rng = np.random.default_rng(1)
    sums = []
    for _ in range(20):
        q, k = rng.standard_normal((n, d)), rng.standard_normal((n, d))
        sums.append((((q @ k.T) / math.sqrt(d)) ** 4).sum(1))
    low, high = np.min(sums) / 1.1, np.max(sums) * 1.1
    while True:
        q, k, v = (rng.standard_normal((n, d)) for _ in range(3))
        rows = (((q @ k.T) / math.sqrt(d)) ** 4).sum(1)
        if low <= rows.min() and rows.max() <= high:
            break
    with open(path, "w") as file:
        print(n, d, low, high, file=file)
        for x in (q, k, v):
            print(*x.ravel().tolist(), file=file)


def read(path):
    numbers = np.array(open(path).read().split(), dtype=float)
    n, d = int(numbers[0]), int(numbers[1])
    q, k, v = numbers[4:].reshape(3, n, d)
    return q, k, v, numbers[2], numbers[3]


def timed(f, count=5):
    f()
    times = []
    for _ in range(count):
        start = time.process_time()
        f()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


class Seal:
    """SEAL 4 as TenSEAL ships it."""

    slots = 1 << 14

    def __init__(self, steps):
        import tenseal.sealapi as s

        self.s = s
        parms = s.EncryptionParameters(s.SCHEME_TYPE.CKKS)
        parms.set_poly_modulus_degree(1 << 15)
        bits = [60] + [40] * LEVELS + [60]
        parms.set_coeff_modulus(s.CoeffModulus.Create(1 << 15, bits))
        self.log_qp = sum(bits)
        self.context = s.SEALContext(parms, True, s.SEC_LEVEL_TYPE.TC128)
        keys = s.KeyGenerator(self.context)
        public, self.relin, self.galois = s.PublicKey(), s.RelinKeys(), s.GaloisKeys()
        keys.create_public_key(public)
        keys.create_relin_keys(self.relin)
        self.encoder = s.CKKSEncoder(self.context)
        # Of the overloads that take a list, the first is by Galois element, 3^step mod 2N.
        elements = [pow(3, step % self.slots, 1 << 16) for step in steps]
        keys.create_galois_keys(elements, self.galois)
        self.encryptor = s.Encryptor(self.context, public)
        self.decryptor = s.Decryptor(self.context, keys.secret_key())
        self.ev = s.Evaluator(self.context)

    def encrypt(self, x):
        plain, out = self.s.Plaintext(), self.s.Ciphertext()
        self.encoder.encode([float(v) for v in x], SCALE, plain)
        self.encryptor.encrypt(plain, out)
        return out

    def decrypt(self, x):
        plain = self.s.Plaintext()
        self.decryptor.decrypt(x, plain)
        return np.array(self.encoder.decode_double(plain))

    def level(self, x):
        return x.coeff_modulus_size()

    def mul(self, a, b):
        a, b = self.aligned(a, b)
        out = self.s.Ciphertext()
        self.ev.multiply(a, b, out)
        return self.finish(out)

    def square(self, a):
        out = self.s.Ciphertext()
        self.ev.square(a, out)
        return self.finish(out)

    def finish(self, out):
        self.ev.relinearize_inplace(out, self.relin)
        self.ev.rescale_to_next_inplace(out)
        return out

    def aligned(self, a, b):
        if self.level(a) < self.level(b):
            b, a = self.aligned(b, a)
            return a, b
        while self.level(a) > self.level(b):
            lower = self.s.Ciphertext()
            self.ev.mod_switch_to_next(a, lower)
            a = lower
        return a, b

    def add(self, a, b):
        out = self.s.Ciphertext()
        self.ev.add(a, b, out)
        return out

    def one_plus(self, a):
        plain, out = self.s.Plaintext(), self.s.Ciphertext()
        self.encoder.encode(1.0, a.parms_id(), a.scale, plain)
        self.ev.add_plain(a, plain, out)
        return out

    def negate(self, a):
        out = self.s.Ciphertext()
        self.ev.negate(a, out)
        return out

    def rotate(self, a, step):
        out = self.s.Ciphertext()
        self.ev.rotate_vector(a, step, self.galois, out)
        return out


class Desilo:
    """desilofhe, one thread."""

    slots = 1 << 14

    def __init__(self, steps):
        import desilofhe

        self.e = desilofhe.Engine(max_level=17, mode="cpu", thread_count=1)
        assert self.e.slot_count == self.slots
        self.log_qp = 0
        self.secret = self.e.create_secret_key()
        self.public = self.e.create_public_key(self.secret)
        self.relin = self.e.create_relinearization_key(self.secret)
        self.keys = {s: self.e.create_fixed_rotation_key(self.secret, s) for s in set(steps)}

    def encrypt(self, x):
        return self.e.encrypt(np.asarray(x, dtype=float), self.public)

    def decrypt(self, x):
        return np.real(self.e.decrypt(x, self.secret))

    def mul(self, a, b):
        return self.e.multiply(a, b, self.relin)

    def square(self, a):
        return self.e.square(a, self.relin)

    def add(self, a, b):
        return self.e.add(a, b)

    def one_plus(self, a):
        return self.e.add(a, 1.0)

    def negate(self, a):
        return self.e.negate(a)

    def rotate(self, a, step):
        return self.e.rotate(a, self.keys[step])


def layout(n, d, slots):
    stride = slots // d
    shifts = stride // n
    return stride, shifts, -(-n // shifts)


def steps(n, d, slots):
    stride, shifts, _ = layout(n, d, slots)
    over_features = [stride << r for r in range(int(math.log2(d)))]
    over_shifts = [n << r for r in range(int(math.log2(min(shifts, n))))]
    return over_features, over_shifts


def pack(x, t, slots):
    """Slot c·stride + s·n + i holds x[(i + t·shifts + s) mod n][c]; t None: x[i][c]."""
    n, d = x.shape
    stride, shifts, _ = layout(n, d, slots)
    s, i = np.divmod(np.arange(stride), n)
    rows = i if t is None else (i + t * shifts + s) % n
    return x[rows].T.ravel()


def head(lib, q, ks, vs, n, d, doublings):
    over_features, over_shifts = steps(n, d, lib.slots)
    num = den = None
    for k, v in zip(ks, vs):
        s = lib.mul(q, k)
        for step in over_features:
            s = lib.add(s, lib.rotate(s, step))
        w = lib.square(lib.square(s))
        wv = lib.mul(w, v)
        num = wv if num is None else lib.add(num, wv)
        den = w if den is None else lib.add(den, w)
    for step in over_shifts:
        num = lib.add(num, lib.rotate(num, step))
        den = lib.add(den, lib.rotate(den, step))
    e = lib.one_plus(lib.negate(den))
    inverse = lib.one_plus(e)
    for _ in range(doublings - 1):
        e = lib.square(e)
        inverse = lib.mul(inverse, lib.one_plus(e))
    return lib.mul(num, inverse)


def peer(make, path):
    q, k, v, low, high = read(path)
    n, d = q.shape
    over_features, over_shifts = steps(n, d, make.slots)
    lib = make([1] + over_features + over_shifts)
    x = lib.encrypt(np.sin(0.37 * np.arange(lib.slots)))
    if lib.log_qp:
        print("log_qp", lib.log_qp)
    print(f"multiply {timed(lambda: lib.mul(x, x)):.3f}")
    print(f"rotate {timed(lambda: lib.rotate(x, 1)):.3f}", flush=True)
    # Row sums times c lie in 1 ± e; e to the power 2^doublings is below the tolerance.
    c = 2.0 / (low + high)
    e = (high - low) / (high + low)
    doublings = math.ceil(math.log2(math.log(3e-7) / math.log(e)))
    if doublings + 4 > (LEVELS if make is Seal else 17):
        sys.exit("the levels do not suffice for this range of row sums")
    _, _, count = layout(n, d, lib.slots)
    eq = lib.encrypt(pack(q * c**0.25 / math.sqrt(d), None, lib.slots))
    ek = [lib.encrypt(pack(k, t, lib.slots)) for t in range(count)]
    ev = [lib.encrypt(pack(v, t, lib.slots)) for t in range(count)]
    times = []
    for _ in range(3):
        start = time.process_time()
        out = head(lib, eq, ek, ev, n, d, doublings)
        times.append(1e3 * (time.process_time() - start))
    stride = lib.slots // d
    found = lib.decrypt(out)[: lib.slots].reshape(d, stride)[:, :n].T
    w = ((q @ k.T) / math.sqrt(d)) ** 4
    exact = (w @ v) / w.sum(1, keepdims=True)
    print("head_levels", doublings + 4)
    print(f"head {statistics.median(times):.1f}")
    print(f"head_bits {-math.log2(np.abs(found - exact).max()):.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "inputs":
        inputs(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        peer({"seal": Seal, "desilo": Desilo}[sys.argv[1]], sys.argv[2])
