//! What a ledger predicts is exactly what a run counts and needs.

#![allow(clippy::unwrap_used)]

use undertone_core::World as _;
use undertone_core::fixed::{Needed, Online};
use undertone_core::trace::{Node, Operators, Step};
use undertone_core::{Bound, Counts, Domains as _, Fault, Full, Mask, Menu, Role, Shape, Site};
use undertone_model::Model;
use undertone_model::fixed::{self, heap};
use undertone_model::float::{Absent, Float, Fused};
use undertone_model::host::Host as _;
use undertone_model::trace;
use undertone_tests::Random;
use undertone_tests::models::{self, Example, shipped, usual_inputs};
use undertone_tests::shapes::Shapes;

/// A model with ranges, the shape of its input and values for it.
struct Subject {
    name: String,
    model: Model,
    shape: Shape,
    rows: Vec<f32>,
}

fn shipped_subjects() -> Vec<Subject> {
    let subject = |(name, model): (String, Model)| {
        let rows = usual_inputs(&model, 1).remove(0);
        Subject { name, shape: model.input_shape(1, model.task_tokens()), rows, model }
    };
    shipped().into_iter().map(subject).collect()
}

/// Random models in batches of one to three.
fn random_subjects(seed: u64, count: usize) -> Vec<Subject> {
    let mut r = Random::new(seed);
    (0..count)
        .map(|number| {
            let json = models::random_config(&mut r);
            let mut model = Model::random(models::parse(&json), r.next()).unwrap();
            let batch = 1 + number % 3;
            let mut rows = Vec::new();
            for _ in 0..batch {
                let example = Example::random(&mut r, &model.config);
                rows.extend(model.rows(&example.input()).unwrap());
            }
            let shape = model.input_shape(batch, model.tokens());
            models::calibrate(&mut model, shape, &rows);
            Subject { name: format!("batch of {batch}, {json}"), model, shape, rows }
        })
        .collect()
}

const UNKNOWN: Bound = Bound::unknown(Site::outside(Role::Input));

fn float_plan<M: Menu<Float<Absent>>>(s: &Subject) -> Counts {
    let mut w = Float::ledger();
    let encoder = s.model.prepare::<_, M>(&mut w).unwrap();
    let input = w.secret(s.shape, &[], UNKNOWN).unwrap();
    encoder.run::<M>(&mut w, input, &Mask::NONE, &s.model.calibration).unwrap();
    w.counts()
}

fn float_run<M: Menu<Float>>(s: &Subject) -> Counts {
    let mut w = Float::new();
    let encoder = s.model.prepare::<_, M>(&mut w).unwrap();
    let out = s.model.run::<_, M>(&mut w, &encoder, s.shape, &s.rows, &Mask::NONE).unwrap();
    assert!(out.iter().all(|x| x.is_finite()), "{}", s.name);
    w.counts()
}

fn float_plans_equal_runs(subjects: &[Subject]) {
    for s in subjects {
        let (fused, full) = (float_run::<Fused>(s), float_run::<Full>(s));
        assert_eq!(float_plan::<Fused>(s), fused, "fused, {}", s.name);
        assert_eq!(float_plan::<Full>(s), full, "composed, {}", s.name);
        assert!(fused.total() > 0 && full.total() > 0, "{}", s.name);
    }
}

/// One fixed-point run in memory of a size: its counts, its memory and its depth.
fn fixed_run(s: &Subject, memory: Needed) -> Result<fixed::Plan, Fault> {
    let mut w = heap(memory);
    let encoder = s.model.prepare::<_, Online>(&mut w)?;
    let on = s.model.calibration.bound(Site::outside(Role::Input));
    let input = w.secret(s.shape, &s.rows, on)?;
    let output = encoder.run::<Online>(&mut w, input, &Mask::NONE, &s.model.calibration)?;
    let (depth, shape) = (output.depth(), w.shape(&output));
    assert!(w.reveal(&output)?.iter().all(|x| x.is_finite()));
    Ok(fixed::Plan { counts: *w.counts(), memory: w.needed(), depth, output: shape })
}

fn fixed_plans_equal_runs(subjects: &[Subject]) {
    for s in subjects {
        let plan = fixed::plan(&s.model, s.shape).unwrap_or_else(|e| panic!("{}: {e}", s.name));
        let memory = plan.memory;
        let run = fixed_run(s, memory);
        assert_eq!(run, Ok(plan), "{}", s.name);
        let short = fixed_run(s, Needed { tensors: memory.tensors - 1, ..memory });
        let (needed, available) = (memory.tensors, memory.tensors - 1);
        assert_eq!(short, Err(Fault::Memory { needed, available }), "{}", s.name);
        if memory.wide > 0 {
            let short = fixed_run(s, Needed { wide: memory.wide - 1, ..memory });
            let (needed, available) = (memory.wide, memory.wide - 1);
            assert_eq!(short, Err(Fault::Memory { needed, available }), "{}", s.name);
        }
    }
}

/// The name that a step has as an operation of a world.
fn operation(step: &Step) -> &'static str {
    match step {
        Step::Input => "secret",
        Step::Copy => "copy",
        Step::Add => "add",
        Step::Sub => "sub",
        Step::Scale(_) => "scale",
        Step::Offset(_) => "offset",
        Step::AddPublic(_) => "add_public",
        Step::MulPublic(_) => "mul_public",
        Step::MatmulPublic(_) => "matmul_public",
        Step::Sum(_) => "sum",
        Step::Rows(..) => "rows",
        Step::RepeatRows(_) => "repeat_rows",
        Step::Columns(..) => "columns",
        Step::Concat => "concat",
        Step::SplitHeads(_) => "split_heads",
        Step::MergeHeads(_) => "merge_heads",
        Step::Mask { .. } => "mask",
        Step::DivideByCount(_) => "divide_by_count",
        Step::Mul => "mul",
        Step::Square => "square",
        Step::Matmul(_) => "matmul",
        Step::Map(_) => "map",
        Step::Relu => "relu",
        Step::Max => "max",
        other => panic!("{other:?} is no operation of a world"),
    }
}

/// A node stands after its operands, one step deeper than the deepest of them.
fn depths_follow(nodes: &[Node]) {
    for (number, node) in nodes.iter().enumerate() {
        let before = node.inputs.iter().flatten().map(|&i| {
            assert!((i as usize) < number, "node {number} depends on node {i}");
            nodes[i as usize].depth
        });
        assert_eq!(node.depth, before.max().unwrap_or(0) + 1, "node {number}: {:?}", node.step);
    }
}

fn traces_equal_runs(subjects: &[Subject]) {
    for s in subjects {
        let nodes = trace::record::<Full>(&s.model, s.shape).unwrap();
        assert_eq!(nodes, trace::record::<Full>(&s.model, s.shape).unwrap(), "{}", s.name);
        depths_follow(&nodes);
        let mut w = Shapes::new(Float::new());
        let encoder = s.model.prepare::<_, Full>(&mut w).unwrap();
        s.model.run::<_, Full>(&mut w, &encoder, s.shape, &s.rows, &Mask::NONE).unwrap();
        let traced: Vec<_> = nodes.iter().map(|n| (operation(&n.step), n.shape)).collect();
        assert_eq!(traced, w.made, "{}", s.name);

        let whole = trace::record::<Operators>(&s.model, s.shape).unwrap();
        depths_follow(&whole);
        assert!(whole.len() < nodes.len(), "{}", s.name);
        assert_eq!(whole.last().map(|n| n.shape), nodes.last().map(|n| n.shape), "{}", s.name);
    }
}

#[test]
fn float_plans_of_shipped_models() {
    float_plans_equal_runs(&shipped_subjects());
}

#[test]
fn float_plans_of_random_models() {
    float_plans_equal_runs(&random_subjects(31, 60));
}

#[test]
fn fixed_plans_of_shipped_models() {
    fixed_plans_equal_runs(&shipped_subjects());
}

#[test]
fn fixed_plans_of_random_models() {
    fixed_plans_equal_runs(&random_subjects(32, 60));
}

#[test]
fn traces_of_shipped_models() {
    traces_equal_runs(&shipped_subjects());
}

#[test]
fn traces_of_random_models() {
    traces_equal_runs(&random_subjects(33, 60));
}
