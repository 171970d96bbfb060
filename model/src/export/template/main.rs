//! Runs the golden examples and compares their logits with the host's, bit for bit.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod golden;

use CRATE::{LABELS, Model, SAMPLE, SCRATCH, class};
use undertone_board::{Place, exit, instructions, print, print_number, print_signed, stack};

static MODEL: Place<Model> = Place::new(Model::new());

fn figure(name: &str, value: u64) {
    print(name);
    print(" ");
    print_number(value);
    print("\n");
}

fn run() {
    let Some(model) = MODEL.take() else { exit(1) };
    let (mut counted, mut painted, mut equal, mut saturated) = (None, None, 0, 0);
    let samples = golden::INPUTS.as_chunks::<SAMPLE>().0;
    for (i, ((sample, want), name)) in
        samples.iter().zip(&golden::LOGITS).zip(golden::NAMES).enumerate()
    {
        let mut logits = None;
        // One run each: the first is counted, the second paints the stack.
        match i {
            0 => counted = instructions(|| logits = model.run(sample).ok()),
            1 => painted = stack::used(|| logits = model.run(sample).ok()),
            _ => logits = model.run(sample).ok(),
        }
        let Some(logits) = logits else {
            print("the model refused to run\n");
            exit(1)
        };
        saturated += model.saturated();
        let same = logits == *want;
        equal += u64::from(same);
        print(name);
        print(": ");
        print(LABELS.get(class(&logits)).copied().unwrap_or("class"));
        print(if same { ", logits equal the host's:" } else { ", logits DIFFER from the host's:" });
        for logit in logits {
            print(" ");
            print_signed(logit.into());
        }
        print("\n");
    }
    if let Some(n) = counted {
        figure("instructions", n);
    }
    if let Some(n) = painted {
        figure("stack_bytes", n as u64);
    }
    figure("scratch_bytes", model.needed().bytes() as u64);
    figure("saturated", saturated);
    figure("examples", golden::EXAMPLES as u64);
    figure("equal", equal);
    if equal != golden::EXAMPLES as u64 || (equal > 0 && model.needed() != SCRATCH) {
        exit(1);
    }
}

undertone_board::main!(run);
