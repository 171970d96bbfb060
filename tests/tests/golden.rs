//! Golden values that PyTorch computed in float64 (`undertone-train golden`).

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use undertone_core::attention::{Kind, Variant};
use undertone_core::{Fault, Full, Mask, Num, Shape, Uncalibrated};
use undertone_model::Model;
use undertone_model::build;
use undertone_model::config::HeadKind;
use undertone_model::fixed::FixedModel;
use undertone_model::float::{Float, Fused};
use undertone_model::reference::{self, Matrix};
use undertone_model::tasks::recall::Recall;
use undertone_tests::attention::{Case, try_attend};
use undertone_tests::models::{self, root, shipped, usual_inputs};

fn golden(name: &str) -> Value {
    let path = root().join("tests/golden").join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

fn usize_of(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// A head as the configuration has it; `None` for the stable form, which is not configured.
fn head(json: &Value) -> Option<HeadKind> {
    if json.get("stable").is_some() {
        return None;
    }
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 2, "max_position_embeddings": 2, "hidden_size": 2,
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 2,
        "undertone": {"version": 1, "layers": [{"heads": [json]}]}
    });
    Some(models::parse(&config).layers[0].heads[0])
}

/// The kind of the core.
fn kind(json: &Value) -> Kind {
    match head(json) {
        Some(head) => build::kind(&head),
        None => Kind::Power {
            p: usize_of(&json["p"]) as u8,
            variant: Variant::Stable { delta: Num::of(json["eps"].as_f64().unwrap()) },
        },
    }
}

/// The greatest distance, relative to the greatest magnitude wanted.
fn distance(got: impl IntoIterator<Item = f64>, want: &[f64]) -> f64 {
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    worst(got, want) / scale.max(f64::MIN_POSITIVE)
}

/// The greatest distance; infinite where lengths differ or a value is not finite.
fn worst(got: impl IntoIterator<Item = f64>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_iter().collect();
    if got.len() != want.len() || got.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    got.iter().zip(want).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

/// One attention case: inputs in f64 that are exact in f32, (heads, tokens, width).
struct Golden {
    heads: usize,
    tokens: usize,
    width: usize,
    mask: String,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

impl Golden {
    fn read(case: &Value) -> Self {
        Self {
            heads: usize_of(&case["heads"]),
            tokens: usize_of(&case["tokens"]),
            width: usize_of(&case["width"]),
            mask: case["mask"].as_str().unwrap().to_owned(),
            q: numbers(&case["q"]),
            k: numbers(&case["k"]),
            v: numbers(&case["v"]),
        }
    }

    /// Keys that query `i` sees.
    fn visible(&self, i: usize) -> usize {
        match self.mask.as_str() {
            "none" => self.tokens,
            "causal" => i + 1,
            "padding" => self.tokens.div_ceil(2),
            other => panic!("unknown mask {other}"),
        }
    }

    /// Values of one head.
    fn head<'a>(&self, of: &'a [f64], head: usize) -> &'a [f64] {
        let len = self.tokens * self.width;
        &of[head * len..(head + 1) * len]
    }

    /// Some heads in a world with the kind.
    fn float(
        &self,
        kind: &Kind,
        heads: std::ops::Range<usize>,
        fused: bool,
    ) -> Result<Vec<f64>, Fault> {
        let shape = Shape::new(heads.len(), self.tokens, self.width);
        let len = self.tokens * self.width;
        let range = heads.start * len..heads.end * len;
        let temperature = 1.0 / (self.width as f64).sqrt();
        let q: Vec<f64> = self.q[range.clone()].iter().map(|x| x * temperature).collect();
        let case = Case {
            q_shape: shape,
            k_shape: shape,
            q: narrow(&q),
            k: narrow(&self.k[range.clone()]),
            v: narrow(&self.v[range]),
        };
        let lengths = [self.visible(0)];
        let mask = match self.mask.as_str() {
            "causal" => Mask { causal: true, lengths: None },
            "padding" => Mask { causal: false, lengths: Some(&lengths) },
            _ => Mask::NONE,
        };
        let w = &mut Float::new();
        let out = if fused {
            try_attend::<_, Fused>(w, kind, &case, &mask, &Uncalibrated)
        } else {
            try_attend::<_, Full>(w, kind, &case, &mask, &Uncalibrated)
        };
        Ok(out?.into_iter().map(f64::from).collect())
    }

    /// One head by the f64 reference, a query at a time since each has a mask of its own.
    fn reference(&self, kind: HeadKind, head: usize) -> Vec<f64> {
        let matrix = |rows, of: &[f64]| Matrix { rows, cols: self.width, data: of.to_vec() };
        let (k, v) = (
            matrix(self.tokens, self.head(&self.k, head)),
            matrix(self.tokens, self.head(&self.v, head)),
        );
        let q = self.head(&self.q, head);
        (0..self.tokens)
            .flat_map(|i| {
                let q = matrix(1, &q[i * self.width..(i + 1) * self.width]);
                let mask: Vec<bool> = (0..self.tokens).map(|j| j < self.visible(i)).collect();
                reference::attend(kind, &q, &k, &v, &mask).data
            })
            .collect()
    }
}

#[test]
fn attention_equals_pytorch() {
    let file = golden("attention");
    let (mut checked, mut float, mut exact) = (0, 0.0f64, 0.0f64);
    for case in file["cases"].as_array().unwrap() {
        let golden = Golden::read(case);
        if let Some(rows) = case["visible"].as_array() {
            for (i, row) in rows.iter().enumerate() {
                let want: Vec<f64> =
                    (0..golden.tokens).map(|j| f64::from(j < golden.visible(i))).collect();
                assert_eq!(numbers(row), want, "{} mask, query {i}", golden.mask);
            }
        }
        for output in case["outputs"].as_array().unwrap() {
            let want = numbers(&output["output"]);
            // A single kind for all heads, or a kind a head.
            let heads: Vec<&Value> = match output.get("heads") {
                Some(heads) => heads.as_array().unwrap().iter().collect(),
                None => vec![&output["head"]],
            };
            let per = golden.heads / heads.len();
            for fused in [false, true] {
                let got = heads.iter().enumerate().map(|(number, head)| {
                    golden.float(&kind(head), number * per..(number + 1) * per, fused)
                });
                let got = got.collect::<Result<Vec<_>, Fault>>();
                // The control composes without a mask only, and says so; the fused form has padding.
                let composed = !fused || golden.mask.contains("causal");
                let control = heads.iter().any(|h| kind(h) == Kind::Uniform);
                if golden.mask != "none" && composed && control {
                    assert!(matches!(got, Err(Fault::Unsupported(_))), "{got:?}");
                    continue;
                }
                let got = got.unwrap_or_else(|e| panic!("{heads:?}: {e}")).concat();
                let e = distance(got, &want);
                assert!(e <= 1e-5, "float, fused {fused}, {heads:?}, {}: {e:e}", golden.mask);
                float = float.max(e);
            }
            if let Some(kinds) = heads.iter().map(|h| head(h)).collect::<Option<Vec<_>>>() {
                let got = (0..golden.heads).flat_map(|h| golden.reference(kinds[h / per], h));
                let e = distance(got, &want);
                assert!(e <= 1e-9, "reference, {heads:?}, {}: {e:e}", golden.mask);
                exact = exact.max(e);
            }
            checked += 1;
        }
    }
    println!("{checked} outputs; float world within {float:.1e}, reference within {exact:.1e}");
    assert!(checked >= 12 * 13, "{checked} outputs are too few");
}

/// Inputs of a model's golden file, as its encoder and as the reference take them.
fn golden_inputs(model: &Model, file: &Value) -> Vec<models::Example> {
    if let Some(vit) = model.config.vit() {
        let plane = vit.image_size * vit.image_size;
        let image = |pixels: &Value| {
            let values = numbers(pixels).into_iter().enumerate().map(|(i, p)| {
                let channel = i / plane;
                ((p / 255.0 - vit.pixel_mean[channel]) / vit.pixel_std[channel]) as f32
            });
            models::Example::Image(values.collect())
        };
        return file["pixels"].as_array().unwrap().iter().map(image).collect();
    }
    let ids = |ids: &Value| numbers(ids).into_iter().map(|x| x as u32).collect();
    let sequences = file["tokens"].as_array().unwrap();
    sequences.iter().map(|x| models::Example::Tokens(ids(x))).collect()
}

fn run_float(model: &Model, rows: &[f32]) -> Vec<f64> {
    let w = &mut Float::new();
    let encoder = model.prepare::<_, Fused>(w).unwrap();
    let one = model.input_shape(1, model.task_tokens());
    let out = model.run::<_, Fused>(w, &encoder, one, rows, &Mask::NONE).unwrap();
    out.into_iter().map(f64::from).collect()
}

/// The float world on every shipped model to 1e-4, the f64 reference to 1e-6 (its inputs are
/// rounded to f32).
#[test]
fn logits_of_shipped_models_equal_pytorch() {
    for (name, model) in shipped() {
        let file = golden(&name);
        let logits = file["logits"].as_array().unwrap();
        let examples = golden_inputs(&model, &file);
        assert!(!logits.is_empty() && logits.len() == examples.len(), "{name}");
        let (mut float, mut exact) = (0.0f64, 0.0f64);
        for (example, want) in examples.iter().zip(logits) {
            let want = numbers(want);
            float =
                float.max(worst(run_float(&model, &model.rows(&example.input()).unwrap()), &want));
            let out = reference::forward(&model.config, &model.weights, example.input()).unwrap();
            exact = exact.max(worst(out.result.data, &want));
        }
        println!("{name:22} float {float:.1e}, reference {exact:.1e}");
        assert!(float <= 1e-4, "{name}: float world {float:e}");
        assert!(exact <= 1e-6, "{name}: reference {exact:e}");
    }
}

/// The 16-bit fixed-point world against PyTorch. Logits are up to about ten in magnitude, so 1e-2
/// is a thousandth of them; 5.8e-3 is the most that was measured. The golden images are noise,
/// which leaves the calibrated ranges of some models: that may cost accuracy, and then the run
/// must have counted it. Inputs that the model was made for must not saturate.
#[test]
fn fixed_point_logits_of_shipped_models() {
    for (name, model) in shipped() {
        let mut runner =
            FixedModel::new(&model, model.input_shape(1, model.task_tokens())).unwrap();
        let mut fixed = |rows: &[f32], want: &[f64]| {
            let run = runner.run(rows).unwrap();
            (worst(run.output.iter().map(|&x| f64::from(x)), want), run.saturated)
        };
        let (mut usual, mut held) = (0.0f64, 0);
        for rows in usual_inputs(&model, 8) {
            let (e, saturated) = fixed(&rows, &run_float(&model, &rows));
            assert!(e <= 1e-2 && saturated == 0, "{name}: {e:e}, {saturated} saturated");
            usual = usual.max(e);
        }
        let file = golden(&name);
        let examples = golden_inputs(&model, &file);
        for (example, want) in examples.iter().zip(file["logits"].as_array().unwrap()) {
            let rows = model.rows(&example.input()).unwrap();
            let (e, saturated) = fixed(&rows, &numbers(want));
            assert!(e <= 1e-2 || saturated > 0, "{name}: {e:e} without saturation");
            held += usize::from(saturated == 0);
        }
        assert!(held > 0, "{name}: every golden input leaves the calibrated ranges");
        println!("{name:22} {usual:.1e} on usual inputs; {held} golden inputs within ranges");
    }
}

#[test]
fn episodes_equal_the_training_code() {
    let file = golden("recall");
    let seed = file["seed"].as_u64().unwrap();
    let mut checked = 0;
    for case in file["cases"].as_array().unwrap() {
        let size = |name: &str| case[name].as_u64().unwrap() as u32;
        let task = Recall::new(size("keys"), size("values"), size("pairs")).unwrap();
        for (index, want) in case["episodes"].as_array().unwrap().iter().enumerate() {
            let episode = task.episode(seed, index as u64);
            let tokens: Vec<u32> = numbers(&want["tokens"]).into_iter().map(|x| x as u32).collect();
            assert_eq!(episode.tokens, tokens);
            assert_eq!(Some(u64::from(episode.label)), want["label"].as_u64());
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked} episodes are too few");
}
