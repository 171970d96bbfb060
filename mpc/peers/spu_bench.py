"""SecretFlow SPU on the workloads of `cargo bench -p undertone-mpc`, two processes on loopback.

    python3.11 -m venv spu && spu/bin/pip install spu==0.9.5
    spu/bin/python mpc/peers/spu_bench.py            # SEMI2K: a trusted first party, like our dealer
    spu/bin/python mpc/peers/spu_bench.py CHEETAH

Prints, for each workload, the median wall time of five runs after one warm-up; the profile of one
more run ends with the bytes and messages that each party sent. Both sides hold fixed point of 18 fraction bits in 64 bits.
"""

import multiprocessing
import statistics
import sys
import time

import numpy as np

RUNS = 5


def workloads():
    import jax
    import jax.numpy as jnp

    x = np.random.default_rng(1).uniform(-4, 4, (64, 64)).astype(np.float32)

    def layer_norm(x):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5)

    def relu_softmax(x):
        r = jnp.maximum(x, 0)
        return r / (r.sum(-1, keepdims=True) + 1e-5)

    return [
        ("relu 4096", lambda x: jnp.maximum(x, 0), x),
        ("gelu 4096", lambda x: jax.nn.gelu(x, approximate=True), x),
        ("softmax 64x64", jax.nn.softmax, x),
        ("relu softmax 64x64", relu_softmax, x),
        ("2quad 64x64", lambda x: x**2 / ((x**2).sum(-1, keepdims=True) + 1e-5), x),
        ("layer norm 64x64", layer_norm, x),
    ]


def configure(protocol, profile):
    import spu.libspu as libspu

    config = libspu.RuntimeConfig(
        protocol=getattr(libspu.ProtocolKind, protocol),
        field=libspu.FieldType.FM64,
        fxp_fraction_bits=18,
    )
    # The profile ends with "Link details: total send bytes ..., send actions ...".
    config.enable_pphlo_profile = profile
    return config


def party(rank, protocol, port, shares):
    import spu
    import spu.libspu as libspu
    from spu.utils import frontend

    desc = libspu.link.Desc()
    for other in range(2):
        desc.add_party(f"p{other}", f"127.0.0.1:{port + other}")
    link = libspu.link.create_brpc(desc, rank)
    runtime = spu.Runtime(link, configure(protocol, False))
    profiled = spu.Runtime(link, configure(protocol, True))
    for (name, function, x), share in zip(workloads(), shares):
        program, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            (x,),
            {},
            ["x"],
            [libspu.Visibility.VIS_SECRET],
            lambda outputs: [f"y{i}" for i in range(len(outputs))],
        )
        times = []
        runtime.set_var("x", share)
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            runtime.run(program)
            times.append(time.perf_counter() - start)
        if rank == 0:
            median = 1e3 * statistics.median(times[1:])
            print(f"{protocol} {name}: {median:.3f} ms", file=sys.stderr, flush=True)
        profiled.set_var("x", share)
        profiled.run(program)


def main():
    import spu
    import spu.libspu as libspu

    protocol = sys.argv[1] if len(sys.argv) > 1 else "SEMI2K"
    io = spu.Io(2, configure(protocol, False))
    shares = [io.make_shares(x, libspu.Visibility.VIS_SECRET) for _, _, x in workloads()]
    context = multiprocessing.get_context("spawn")
    parties = [
        context.Process(target=party, args=(rank, protocol, 9530, [s[rank] for s in shares]))
        for rank in range(2)
    ]
    for process in parties:
        process.start()
    for process in parties:
        process.join()
    sys.exit(max(process.exitcode for process in parties))


if __name__ == "__main__":
    main()
