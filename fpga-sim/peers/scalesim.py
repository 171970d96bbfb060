"""SCALE-Sim 3 on the four rows of the validation table, or on M N K, as CSV on standard output.

    python3 -m venv scalesim && scalesim/bin/pip install numpy==1.26.4 'pandas<3' scalesim==3.0.0
    scalesim/bin/python fpga-sim/peers/scalesim.py

Beside this project's simulator and Verilator, in one run:

    cargo run --release -p undertone-fpga-sim --example peers -- scalesim/bin/python
"""

import csv
import pathlib
import sys
import tempfile
import time

# This file has the package's own name: look for the package elsewhere.
sys.path.pop(0)

ROWS = [(129, 192, 192), (129, 768, 192), (129, 192, 768), (16, 384, 192)]
if len(sys.argv) == 4:
    ROWS = [tuple(map(int, sys.argv[1:]))]

CONFIG = """[general]
run_name = peer
[architecture_presets]
ArrayHeight: 16
ArrayWidth: 16
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: ws
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def main():
    import contextlib
    import io

    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config, topology = folder / "peer.cfg", folder / "peer.csv"
        config.write_text(CONFIG)
        lines = ["Layer, M, N, K,"] + [f"r{i}, {m}, {n}, {k}," for i, (m, n, k) in enumerate(ROWS)]
        topology.write_text("\n".join(lines) + "\n")
        sim = scalesim(save_disk_space=True, verbose=False, config=str(config), topology=str(topology),
                       layout=str(layout(folder)), input_type_gemm=True)
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            sim.run_scale(top_path=str(folder))
        seconds = time.process_time() - start
        report = next(folder.rglob("COMPUTE_REPORT.csv"))
        total = 0
        print("m,n,k,compute_cycles,cycles_with_prefetch")
        for (m, n, k), row in zip(ROWS, list(csv.reader(report.open()))[1:]):
            prefetch, cycles = (round(float(x)) for x in row[1:3])
            total += prefetch
            print(f"{m},{n},{k},{cycles},{prefetch}")
        print(f"# {total} cycles in {seconds:.3f} s of processor time: {total / seconds:.0f} cycles/s")


def layout(folder):
    path = folder / "layout.csv"
    head = "Layer name,IFMAP Height Intraline Factor,IFMAP Width Intraline Factor,Filter Height Intraline Factor," \
        "Filter Width Intraline Factor,Channel Intraline Factor,Num Filter Intraline Factor,IFMAP Height Intraline Order," \
        "IFMAP Width Intraline Order,Channel Intraline Order,IFMAP Height Interline Order,IFMAP Width Interline Order," \
        "Channel Interline Order,Num Filter Intraline Order,Channel Intraline Order,Filter Height Intraline Order," \
        "Filter Width Intraline Order,Num Filter Interline Order,Channel Interline Order,Filter Height Interline Order," \
        "Filter Width Interline Order,"
    path.write_text("\n".join([head] + [f"r{i}," + "1," * 20 for i in range(len(ROWS))]) + "\n")
    return path


if __name__ == "__main__":
    main()
