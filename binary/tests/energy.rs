//! The published tables of EcoFormer and BiViT are the ledger's oracle.
#![allow(clippy::unwrap_used, missing_docs)]

use undertone_binary::energy::pyramid::{self, Attention, Counting, ECOFORMER, PUBLISHED, like};
use undertone_binary::energy::{PriceError, Prices, ops};
use undertone_core::{Counts, Op, Width};

#[test]
fn the_published_energy_rows_of_ecoformer_come_out() {
    let prices = Prices::horowitz();
    for row in PUBLISHED {
        let counts = pyramid::count(&row.model, row.attention, Counting::Published);
        let ours = [
            counts.of(Op::Mul) as f64 / 1e9,
            counts.of(Op::Add) as f64 / 1e9,
            prices.picojoules(&counts).unwrap() / 1e9,
        ];
        for (value, printed) in ours.iter().zip(row.printed) {
            assert_eq!(like(*value, printed), printed, "{} {value}", row.model.name);
        }
    }
}

#[test]
fn squarings_cost_what_was_left_out() {
    let prices = Prices::horowitz();
    for model in pyramid::PVT_V2 {
        let of = |c| pyramid::count(&model, ECOFORMER, c);
        let (published, full) = (of(Counting::Published), of(Counting::WithSquarings));
        let squarings: u64 =
            (0..3).map(|i| (224u64 / (4 << i)).pow(2) * 25 * model.dims[i] * model.depths[i]).sum();
        assert_eq!(full.of(Op::Mul) - published.of(Op::Mul), squarings);
        assert_eq!(full.of(Op::Add), published.of(Op::Add));
    }
    let of = |attention, counting| {
        prices
            .picojoules(&pyramid::count_attention(&pyramid::PVT_V2[0], attention, counting))
            .unwrap()
    };
    let softmax = of(Attention::Softmax, Counting::Published);
    assert_eq!(like(softmax / of(ECOFORMER, Counting::Published), "105"), "105");
    assert_eq!(like(softmax / of(ECOFORMER, Counting::WithSquarings), "69"), "69");
}

#[test]
fn the_published_operations_of_bivit_come_out() {
    for row in ops::published() {
        let s = &row.shapes;
        assert_eq!(like(s.float_ops() / 1e9, row.printed[0]), row.printed[0], "{}", s.name);
        assert_eq!(like(s.binary_ops() / 1e9, row.printed[1]), row.printed[1], "{}", s.name);
    }
}

/// Ten of twelve sizes come out; the other two are off by what the documentation says.
#[test]
fn the_published_sizes_of_bivit_come_out() {
    let mut apart = Vec::new();
    for row in ops::published() {
        let s = &row.shapes;
        let (float, binary) = (s.float_megabytes(), s.binary_bytes() / 1e6);
        for (value, printed) in [(float, row.printed[2]), (binary, row.printed[3])] {
            if like(value, printed) != printed {
                apart.push((s.name, format!("{value:.2}"), printed));
            }
        }
    }
    let swin = ("Swin-S", "15.35".to_owned(), "15.4");
    assert_eq!(apart, [swin, ("PVTv2-B1", "56.00".to_owned(), "53.5")]);
    let rows = ops::published();
    let official = [5_717_416, 86_567_656, 28_288_354, 49_606_258];
    for (row, parameters) in rows.iter().zip(official) {
        assert_eq!(row.shapes.parameters(), parameters, "{}", row.shapes.name);
    }
    let mebibytes = 4.0 * rows[5].shapes.parameters() as f64 / f64::from(1 << 20);
    assert_eq!(format!("{mebibytes:.2}"), "53.44");
}

#[test]
fn tables_are_checked() {
    let ok = Prices::parse("name='x'\n[picojoules]\nadd={i1=0.5}").unwrap();
    let mut counts = Counts::default();
    counts.add(Op::Add, Width::I1, 4);
    counts.add(Op::Move, Width::F32, 100);
    assert_eq!(ok.picojoules(&counts).unwrap(), 2.0);
    counts.add(Op::Mul, Width::F32, 1);
    let missing = ok.picojoules(&counts).unwrap_err();
    assert!(matches!(missing, PriceError::Unpriced { op: "mul", width: "f32", count: 1, .. }));
    for (text, fragment) in [
        ("", "missing field `name`"),
        ("name='x'\n[picojoules]\nadd={f99=1}", "no operation `add` of width `f99`"),
        ("name='x'\n[picojoules]\nadd={f32=-1}", "not negative"),
        ("name='x'\n[picojoules]\nadd={f32=nan}", "not negative"),
        ("name='x'\nother=1\n[picojoules]", "unknown field"),
    ] {
        let message = Prices::parse(text).unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
    }
    assert!(matches!(Prices::parse(&"#".repeat(70_000)), Err(PriceError::Long { got: 70_000 })));
}
