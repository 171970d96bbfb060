//! What the two parties bring: the server's weights, the client's values, and what the client sees.

use super::{Held, Secret, UNKNOWN, magnitude};
use crate::mpc::{Mpc, Wire};
use crate::{Error, Result};
use std::sync::Arc;
use undertone_core::{Bound, Fault, Made, Shape};
use undertone_model::host::{Host, Weight};

impl Mpc {
    fn held(&mut self, shape: Shape, values: &[f32]) -> Result<(Wire, i32)> {
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        Ok((self.input(1, shape, Some(&values))?, WEIGHT))
    }
}

/// log₂ of the magnitude of weights: not looked at, since only the server knows them.
const WEIGHT: i32 = 2;

impl Host for Mpc {
    fn linear(&mut self, w: Weight<'_>) -> Result<Held> {
        let (k, m) = (w.inputs, w.outputs);
        let mut transposed = Vec::new();
        if self.party() == Some(1) {
            if w.weight.len() != k * m {
                return Err(Error::shape("linear", k * m, w.weight.len()));
            }
            transposed.extend((0..k).flat_map(|i| (0..m).map(move |o| w.weight[o * k + i])));
        }
        let (wire, range) = self.held(Shape::new(1, k, m), &transposed)?;
        let bias = match w.bias {
            Some(bias) => {
                let (wire, _) = self.held(Shape::new(1, 1, m), bias)?;
                Some(self.share(&wire))
            }
            None => None,
        };
        Ok(Held { wire, bias, range })
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<Held> {
        let (wire, range) = self.held(shape, values)?;
        Ok(Held { wire, bias: None, range: range + 2 })
    }

    fn secret(&mut self, shape: Shape, values: &[f32], on: Bound) -> Made<Self> {
        if shape.is_empty() {
            return Err(Fault::Empty { op: "secret", shape }.into());
        }
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let wire = self.input(0, shape, Some(&values))?;
        let secret = Secret::new(self.share(&wire), magnitude(on, UNKNOWN));
        secret.cache().wires.push((self.path(), Arc::new(wire)));
        Ok(secret)
    }

    /// To the client. Elsewhere zeros.
    fn reveal(&mut self, x: &Secret) -> Result<Vec<f32>> {
        let n = x.value.shape.len();
        let form = self.best(x);
        let shown = Self::reveal(self, &form, 0)?;
        Ok(shown.map_or_else(|| vec![0.0; n], |v| v.iter().map(|x| *x as f32).collect()))
    }
}
