"""SecretFlow SPU beside undertone on the same workloads, between two processes or threads over TCP.

    python3.11 mpc/peers/compare.py                     # SEMI2K and ours, loopback
    python3.11 mpc/peers/compare.py --protocol CHEETAH --wan --only softmax,relu

Installs SPU 0.9.5 into a virtual environment (--venv), builds the example `peers`, runs both, and
prints a Markdown table. With --wan every connection of both goes through a relay that delays by 20 ms
one way at 352 Mbit/s. Bytes are those that one party sends; SPU counts messages, we count exchanges.
Both sides hold fixed point of 18 fraction bits in 64 bits. SEMI2K's first party makes the
correlations within the run, while our dealer has dealt before it: times are for a reader who knows.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time

DELAY, BANDWIDTH = 0.020, 352e6
HERE = os.path.dirname(os.path.abspath(__file__))


# The workloads, by the names that the example `peers` prints.
def workloads():
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(1)
    uniform = lambda *shape: rng.uniform(-4, 4, shape).astype(np.float32)
    x = uniform(64, 64)
    qkv = [uniform(4, 65, 64) / 4 for _ in range(3)]
    normal = lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    block_in = [uniform(65, 256)] + [
        normal(*s) for s in [(256, 256)] * 4 + [(256, 512), (512, 256)]
    ]

    def layer_norm(x):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5)

    gelu = lambda x: jax.nn.gelu(x, approximate=True)

    def relu_softmax(s):
        r = jnp.maximum(s, 0)
        return r / (r.sum(-1, keepdims=True) + 1e-5)

    def two_quad(s):
        return s**2 / ((s**2).sum(-1, keepdims=True) + 1e-5)

    kinds = {
        "softmax": jax.nn.softmax,
        "relu_softmax": relu_softmax,
        "two_quad": two_quad,
        "scaling": lambda s: s / s.shape[-1],
    }

    def attention(weigh):
        def run(q, k, v):
            return weigh(q @ k.transpose(0, 2, 1) / 8.0) @ v

        return run

    def block(weigh):
        def run(x, wq, wk, wv, wo, up, down):
            n = layer_norm(x)
            heads = lambda y: y.reshape(65, 4, 64).transpose(1, 0, 2)
            y = attention(weigh)(heads(n @ wq), heads(n @ wk), heads(n @ wv))
            x = x + y.transpose(1, 0, 2).reshape(65, 256) @ wo
            return x + gelu(layer_norm(x) @ up) @ down

        return run

    out = [
        ("relu 4096", lambda x: jnp.maximum(x, 0), [x]),
        ("gelu 4096", gelu, [x]),
        ("layer norm 64x64", layer_norm, [x]),
        ("softmax 64x64", jax.nn.softmax, [x]),
    ]
    out += [(f"attention {name} 4x65x64", attention(f), qkv) for name, f in kinds.items()]
    out += [(f"block {name}", block(f), block_in) for name, f in kinds.items() if name != "two_quad"]
    return out


def chosen(only):
    return [w for w in workloads() if not only or any(o in w[0] for o in only)]


def configuration(protocol, profile):
    import spu.libspu as libspu

    c = libspu.RuntimeConfig(
        protocol=getattr(libspu.ProtocolKind, protocol),
        field=libspu.FieldType.FM64,
        fxp_fraction_bits=18,
    )
    # The profile ends with "Link details: total send bytes ..., send actions ...".
    c.enable_pphlo_profile = profile
    return c


def party(rank, protocol, only, ports, log, runs, shares):
    """One SPU party. Marks each workload in the log, to which SPU writes its profile."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import spu
    import spu.libspu as libspu
    from spu.utils import frontend

    desc = libspu.link.Desc()
    desc.recv_timeout_ms = 600_000
    for other, port in enumerate(ports):
        desc.add_party(f"p{other}", f"127.0.0.1:{port}")
    link = libspu.link.create_brpc(desc, rank)
    runtime = spu.Runtime(link, configuration(protocol, False))
    profiled = spu.Runtime(link, configuration(protocol, True))
    for (name, function, inputs), share in zip(chosen(only), shares):
        names = [f"x{i}" for i in range(len(inputs))]
        secret = [libspu.Visibility.VIS_SECRET] * len(inputs)
        program, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            inputs,
            {},
            names,
            secret,
            lambda outputs: [f"y{i}" for i in range(len(outputs))],
        )

        def run(runtime):
            for x, s in zip(names, share):
                runtime.set_var(x, s)
            start = time.perf_counter()
            runtime.run(program)
            return time.perf_counter() - start

        # The first run sets up what later ones use: it is not counted.
        run(profiled)
        print(f"@profile {name}", file=sys.stderr, flush=True)
        run(profiled)
        times = sorted(run(runtime) for _ in range(runs))
        print(f"@median {name}@{times[len(times) // 2]}", file=sys.stderr, flush=True)


def spu_side(args):
    """Name -> (bytes sent, messages, seconds) of SPU's first party."""
    import multiprocessing

    import spu
    import spu.libspu as libspu

    io = spu.Io(2, configuration(args.protocol, False))
    shares = [
        [io.make_shares(x, libspu.Visibility.VIS_SECRET) for x in inputs]
        for _, _, inputs in chosen(args.only)
    ]
    a, b, ra, rb = range(args.port, args.port + 4)
    # With a relay each party finds the other behind it.
    ports = [(a, rb), (ra, b)] if args.wan else [(a, b), (a, b)]
    logs = [os.path.join(args.scratch, f"spu-{rank}.log") for rank in range(2)]
    context = multiprocessing.get_context("spawn")
    parties = [
        context.Process(
            target=party,
            args=(r, args.protocol, args.only, ports[r], logs[r], args.runs, [[s[r] for s in x] for x in shares]),
        )
        for r in range(2)
    ]
    for process in parties:
        process.start()
    for process in parties:
        process.join()
    found, name = {}, None
    for line in open(logs[0]):
        if line.startswith("@profile "):
            name = line[9:].strip()
        elif match := re.search(r"total send bytes (\d+).*send actions (\d+)", line):
            if name:
                found[name] = [int(match[1]), int(match[2]), None]
        elif line.startswith("@median "):
            name, seconds = line[8:].rsplit("@", 1)
            found[name][2] = float(seconds)
            name = None
    if not found:
        sys.exit(f"SPU said nothing; see {logs[0]}")
    return found


def our_side(args):
    """Name -> (bytes sent, exchanges, seconds) of our client."""
    command = args.ours.split() + [str(args.runs), f"127.0.0.1:{args.port + 4}"]
    command.append(f"127.0.0.1:{args.port + (5 if args.wan else 4)}")
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return {f["name"]: (f["sent_bytes"], f["exchanges"], f["wall_seconds"]) for f in found}


async def relay(pairs):
    async def pump(reader, writer):
        queue, free = asyncio.Queue(), 0.0
        loop = asyncio.get_running_loop()

        async def out():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if data is None:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        task = asyncio.create_task(out())
        while data := await reader.read(1 << 16):
            free = max(free, loop.time()) + len(data) * 8 / BANDWIDTH
            queue.put_nowait((free + DELAY, data))
        queue.put_nowait((loop.time() + DELAY, None))
        await task

    def serve(to):
        async def accept(reader, writer):
            for _ in range(1000):
                try:
                    onward = await asyncio.open_connection("127.0.0.1", to)
                    break
                except OSError:
                    await asyncio.sleep(0.02)
            else:
                return writer.close()
            await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer), return_exceptions=True)

        return accept

    servers = [await asyncio.start_server(serve(to), "127.0.0.1", at) for at, to in pairs]
    await asyncio.gather(*(s.serve_forever() for s in servers))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="SEMI2K", choices=["SEMI2K", "CHEETAH"])
    parser.add_argument("--wan", action="store_true", help="20 ms one way, 352 Mbit/s")
    parser.add_argument("--only", type=lambda s: s.split(","), help="workloads whose names contain one of these")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--port", type=int, default=9530, help="the first of six")
    parser.add_argument("--venv", default=os.path.join(HERE, "..", "..", "target", "spu"))
    parser.add_argument("--ours", default="cargo run -q --release -p undertone-mpc --example peers --")
    args = parser.parse_args()
    try:
        import spu  # noqa: F401
    except ImportError:
        python = os.path.join(args.venv, "bin", "python")
        if os.environ.get("UNDERTONE_PEERS") == "again":
            sys.exit("spu cannot be imported from " + args.venv)
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", args.venv], check=True)
        packages = ["spu==0.9.5", "jax[cpu]"]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        os.environ["UNDERTONE_PEERS"] = "again"
        os.execv(python, [python, *sys.argv])
    import tempfile

    args.scratch = tempfile.mkdtemp()
    if args.wan:
        a, b, ra, rb, server, through = range(args.port, args.port + 6)
        pairs = [(ra, a), (rb, b), (through, server)]
        threading.Thread(target=lambda: asyncio.run(relay(pairs)), daemon=True).start()
    ours, theirs = our_side(args), spu_side(args)
    where = "20 ms one way, 352 Mbit/s" if args.wan else "loopback"
    print(f"| {where} | {args.protocol}: bytes, messages, s | ours: bytes, exchanges, s | bytes | time |")
    print("|---|---|---|---|---|")
    for name, (sent, actions, seconds) in theirs.items():
        if name in ours:
            b, e, t = ours[name]
            print(
                f"| {name} | {sent:,}, {actions}, {seconds:.4f} | {b:,}, {e}, {t:.4f} "
                f"| {sent / max(b, 1):.1f} × | {seconds / t:.1f} × |"
            )


if __name__ == "__main__":
    main()
