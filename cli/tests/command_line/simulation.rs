//! `simulate` and `explore`: what they print and write, and what they refuse.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{success, undertone};

const M3VIT: [&str; 3] = ["simulate", "--workload", "m3vit"];

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn refused(arguments: &[&str], words: &[&str]) {
    let run = undertone(arguments);
    assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{arguments:?}: {}", run.err);
    for word in words {
        assert!(run.err.contains(word), "`{word}` is missing in {}", run.err);
    }
}

#[test]
fn report() {
    assert_snapshot!(success(&M3VIT));
    let report = parse(&success(&[&M3VIT[..], &["--json"]].concat()));
    assert_eq!(report["latency_cycles"], 5_477_464);
    let sum: f64 = report["energy"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["energy_pj"].as_f64().unwrap())
        .sum();
    assert!((sum / report["energy"]["total_pj"].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

/// Edge-MoE's source, row by row, in ideal mode.
#[test]
fn ideal_cycles() {
    let call = |more: &[&str]| {
        let text = success(&[&M3VIT[..], &["--mode", "ideal", "--json"], more].concat());
        parse(&text)["latency_cycles"].as_u64().unwrap()
    };
    assert_eq!(call(&["--loads", "hidden"]), 5_436_000);
    assert_eq!(call(&["--loads", "serial"]), 6_541_920);
}

#[test]
fn a_setting_changes_the_architecture() {
    let cycles = |more: &[&str]| {
        parse(&success(&[&M3VIT[..], &["--json"], more].concat()))["latency_cycles"]
            .as_u64()
            .unwrap()
    };
    assert!(cycles(&["--set", "memory.width_bits=128"]) > cycles(&[]));
    for (set, words) in [
        ("memory.width_bits=12", &["memory.width_bits = 12", "whole bytes"][..]),
        ("memory.width_bits=wide", &["memory.width_bits", "invalid type"]),
        ("memory.widht_bits=128", &["memory.widht_bits", "no such key"]),
        ("memory.width_bits", &["write KEY=VALUE"]),
    ] {
        refused(&[&M3VIT[..], &["--set", set]].concat(), words);
    }
}

#[test]
fn every_file_is_written_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = ["page.html", "trace.json", "compute.csv", "bandwidth.csv", "run.vcd"].map(path);
    let mut call = M3VIT.to_vec();
    for (option, file) in
        ["--html", "--perfetto", "--csv", "--bandwidth-csv", "--vcd"].iter().zip(&files)
    {
        call.extend([*option, file.as_str()]);
    }
    success(&call);
    let page = read(files[0].as_ref());
    // Nothing is fetched from elsewhere.
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
    assert!(!page.contains("http") && !page.contains("src=") && !page.contains("NaN"));
    let trace = parse(&read(files[1].as_ref()));
    assert!(trace["traceEvents"].as_array().unwrap().len() > 140);
    assert!(read(files[2].as_ref()).starts_with("LayerID, Total Cycles (incl. prefetch),"));
    assert!(read(files[3].as_ref()).starts_with("LayerID, Avg IFMAP SRAM BW,"));
    let wave = read(files[4].as_ref());
    assert!(wave.contains("$var wire 1") && wave.contains("s11.experts"), "{wave}");
    // One operator, cycle by cycle.
    let one = path("scores.vcd");
    let small = ["simulate", "--model", "models/vit-fmnist", "--json"];
    let report = parse(&success(&small));
    let step = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["unit"] == "attention")
        .and_then(|s| s["name"].as_str())
        .unwrap()
        .to_owned();
    success(&[&small[..], &["--vcd", &one, "--step", &step]].concat());
    let wave = read(one.as_ref());
    assert!(wave.contains("products $end") && wave.contains("level_qk $end"), "{wave}");
    let depths = success(&[&small[..], &["--depths", "--step", &step]].concat());
    assert!(!parse(&depths)[0]["depths"].as_array().unwrap().is_empty());
}

/// The four rows of SCALE-Sim 3, from its own topology format.
#[test]
fn scale_sims_topology() {
    let folder = tempfile::tempdir().unwrap();
    let (topology, csv) = (folder.path().join("rows.csv"), folder.path().join("COMPUTE.csv"));
    std::fs::write(
        &topology,
        "Layer, M, N, K,\na, 129, 192, 192,\nb, 129, 768, 192,\nc, 129, 192, 768,\nd, 16, 384, 192,\n",
    )
    .unwrap();
    let [topology, csv] = [&topology, &csv].map(|p| p.to_str().unwrap());
    let arch = ["simulate", "--arch", "systolic-16x16", "--workload", topology, "--csv", csv];
    success(&arch);
    let cycles: Vec<u64> = read(csv.as_ref())
        .lines()
        .skip(1)
        .map(|row| row.split(", ").nth(2).unwrap().parse().unwrap())
        .collect();
    assert_eq!(cycles, [25_199, 100_799, 100_799, 17_855]);
}

#[test]
fn explore_resumes_shards_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (grid, whole, a, b) = (path("grid.toml"), path("all"), path("a"), path("b"));
    std::fs::write(
        &grid,
        "base = \"edge-moe-zcu102\"\nworkload = \"m3vit\"\nmode = \"ideal\"\n[grid]\n\
         \"linear.rows\" = [8, 16, 4096]\n\"attention.lanes\" = [2, 4]\n",
    )
    .unwrap();
    let front = success(&["explore", &grid, "--json"]);
    assert_eq!(success(&["explore", &grid, "--json", "--out", &whole]), front);
    let answer = parse(&front);
    // 4096 rows are more multipliers than the device has.
    assert_eq!((&answer["points"], &answer["impossible"]), (&6.into(), &2.into()));
    assert!(read(whole.as_ref()).contains("the device has 2520"));
    // Broken off in the middle of the last line, it goes on.
    let text = read(whole.as_ref());
    assert_eq!(text.lines().count(), 7);
    std::fs::write(&whole, &text[..text.len() - 9]).unwrap();
    assert_eq!(success(&["explore", &grid, "--json", "--out", &whole]), front);
    assert_eq!(read(whole.as_ref()).lines().count(), 7);
    success(&["explore", &grid, "--shard", "0/2", "--out", &a]);
    refused(&["explore", "merge", &grid, &a], &["3 of 6 points are missing"]);
    success(&["explore", &grid, "--shard", "1/2", "--out", &b]);
    assert_eq!(success(&["explore", "merge", &grid, &a, &b, "--json"]), front);
    // A traced model in place of the grid's workload is another grid.
    let model = ["explore", &grid, "--model", "models/vit-fmnist", "--out"];
    refused(&[&model[..], &[&a]].concat(), &["belong to another grid"]);
    success(&[&model[..], &[&path("c")]].concat());
    refused(&["explore", &grid, "--shard", "2/2", "--out", &b], &["i from 0 to N - 1"]);
    refused(&["explore", &path("none.toml")], &["none.toml"]);
    std::fs::write(&grid, "base = \"edge-moe-zcu102\"\nworkload = \"m3vit\"\n[grids]\n").unwrap();
    refused(&["explore", &grid], &["grid.toml", "line 3", "grids"]);
    std::fs::write(&grid, "base = \"zcu\"\nworkload = \"m3vit\"\n[grid]\n").unwrap();
    refused(&["explore", &grid], &["presets are edge-moe-zcu102"]);
}

#[test]
fn bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let preset = include_str!("../../../fpga-sim/presets/edge-moe-zcu102.toml");
    let arch = |from: &str, to: &str| path("arch.toml", &preset.replacen(from, to, 1));
    for (from, to, words) in [
        (
            "fifo_depth = 48",
            "fifo_depth = 0",
            &["arch.toml", "linear.fifo_depth", "at least 1"][..],
        ),
        ("width_bits = 256", "width_bits = 0", &["memory.width_bits", "line", "at least 1"]),
        ("bytes = 4294967296", "bytes = 4096", &["external memory", "there are 4096"]),
        ("ports = 5", "ports = 5\nportz = 5", &["unknown field `portz`", "line"]),
    ] {
        let file = arch(from, to);
        refused(&[&M3VIT[..], &["--arch", &file]].concat(), words);
    }
    let huge =
        path("huge.csv", "Layer, M, N, K,\nhuge, 549755813888, 549755813888, 549755813888,\n");
    refused(&["simulate", "--workload", &huge], &["huge.csv", "overflow", "2^62"]);
    let csv = path("bad.csv", "Layer, M, N, K,\na, 1, 2, x,\n");
    refused(&["simulate", "--workload", &csv], &["bad.csv", "line 2", "whole number"]);
    let json = path("bad.json", "{\"name\": \"x\",\n\"steps\": [{\"kind\": \"linear\"}]}");
    refused(&["simulate", "--workload", &json], &["bad.json", "line 2", "missing field"]);
    refused(&["simulate", "--workload", "gpt"], &["built-in shapes are m3vit"]);
    refused(&["simulate"], &["--model DIR or --workload"]);
    refused(&[&M3VIT[..], &["--arch", "zcu"]].concat(), &["zcu"]);
    refused(&[&M3VIT[..], &["--step", "9.none", "--depths"]].concat(), &["no such operator"]);
    let systolic = [&M3VIT[..], &["--arch", "systolic-16x16"]].concat();
    refused(&systolic, &["1.experts", "gating queues"]);
}
