//! Classifies every input of `inputs.bin` in the emulator's working directory: a line each with the
//! class and the logits, as in `expected.txt`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use CRATE::{Model, SAMPLE, class};
use undertone_board::{Input, Place, exit, print, print_number, print_signed};

static MODEL: Place<Model> = Place::new(Model::new());
static SAMPLES: Place<[u8; SAMPLE]> = Place::new([0; SAMPLE]);

fn run() {
    let (Some(model), Some(sample)) = (MODEL.take(), SAMPLES.take()) else { exit(1) };
    let Some(mut file) = Input::open(c"inputs.bin") else {
        print("no inputs.bin here\n");
        exit(1)
    };
    while file.read(sample) {
        let Ok(logits) = model.run(sample) else { exit(1) };
        print_number(class(&logits) as u64);
        for logit in logits {
            print(" ");
            print_signed(logit.into());
        }
        print("\n");
    }
}

undertone_board::main!(run);
