//! Linear weights in bytes: half the flash of 16 bits.

use undertone_core::fixed::{Fixed, Memory, Operand, Weight, bytes, frac_for};
use undertone_core::{Fault, Num, Shape};

use super::{Owned, Source};
use crate::build::Prepared;
use crate::config::VitInput;
use crate::domains::Calibration;

/// The greatest weight; −128 is not used.
const MOST: f64 = 127.0;

/// A source whose 16-bit linear weights become bytes with a scale a row (per-channel, symmetric);
/// biases, norms and embeddings keep 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct ByteWeights<'a, S>(pub &'a S);

impl<S: Source> Source for ByteWeights<'_, S> {
    fn encoder<M: Memory>(
        &self,
        w: &mut Fixed<M, Owned>,
    ) -> Result<Prepared<Fixed<M, Owned>>, Fault> {
        let mut e = self.0.encoder(w)?;
        e.embed.iter_mut().for_each(narrow);
        for layer in &mut e.layers {
            let all = [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.out];
            all.into_iter().for_each(narrow);
            narrow(&mut layer.up);
            layer.down.iter_mut().for_each(narrow);
        }
        e.classifier.iter_mut().for_each(narrow);
        Ok(e)
    }

    fn calibration(&self) -> &Calibration {
        self.0.calibration()
    }

    fn vit(&self) -> Option<&VitInput> {
        self.0.vit()
    }

    fn labels(&self) -> &[String] {
        self.0.labels()
    }

    fn shape(&self) -> Shape {
        self.0.shape()
    }
}

fn narrow(operand: &mut Operand<Owned>) {
    let Operand::Linear { inputs, outputs, weight, frac, .. } = operand else { return };
    let Weight::Halves(values) = weight else { return };
    let unit = f64::from(-*frac).exp2();
    // The scale that reaches each row's greatest weight.
    let scales: Vec<f64> = values
        .chunks_exact((*inputs).max(1))
        .map(|row| {
            let most = row.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
            f64::from(most) * unit / MOST
        })
        .collect();
    let greatest = scales.iter().fold(0.0f64, |m, &s| m.max(s));
    let scale_frac = if greatest > 0.0 { frac_for(Num::of(greatest).ceil_log2()) } else { 15 };
    let step = f64::from(scale_frac).exp2();
    // Rounded up, so that no weight exceeds the greatest byte.
    let scale: Vec<i16> =
        scales.iter().map(|s| (s * step).ceil().min(f64::from(i16::MAX)) as i16).collect();
    let rounded: Vec<i8> = values
        .chunks_exact((*inputs).max(1))
        .zip(&scale)
        .flat_map(|(row, &scale)| {
            let byte = unit * step / f64::from(scale.max(1));
            row.iter()
                .map(move |&v| (f64::from(v) * byte).round_ties_even().clamp(-MOST, MOST) as i8)
        })
        .collect();
    let blocks = (0..bytes::blocks(*outputs, *inputs))
        .map(|at| bytes::block(&rounded, *inputs, at))
        .collect();
    *weight = Weight::Bytes { blocks, scale };
    *frac = scale_frac;
}
