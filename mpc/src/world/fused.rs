use super::{FACTOR, MARGIN, Secret, UNKNOWN, log2_ceil, magnitude};
use crate::mpc::Mpc;
use undertone_core::attention::{Context, Heads, Kind};
use undertone_core::encoder::{Activation, Norm};
use undertone_core::{Bound, Fault, Full, Made, Menu};

/// The menu of the shared world: every operator of the core, with LayerNorm fused, so that the
/// gain's product overlaps the search for 1/σ.
#[derive(Clone, Copy, Debug)]
pub struct Fused;

impl Menu<Mpc> for Fused {
    fn check(kind: &Kind) -> std::result::Result<(), Fault> {
        <Full as Menu<Mpc>>::check(kind)
    }

    fn attend(w: &mut Mpc, kind: &Kind, x: Heads<Mpc>, at: &Context<'_>) -> Made<Mpc> {
        // Phases tell what the heads of a kind cost, apart from projections and norms.
        let before = w.meter().current().to_owned();
        let heads = x.q.value.shape.batch;
        Mpc::phase(w, &format!("{before}, {heads} × {}", kind.name()));
        let out = Full::attend(w, kind, x, at);
        Mpc::phase(w, &before);
        out
    }

    fn activate(
        w: &mut Mpc,
        activation: &Activation<Mpc>,
        x: Secret,
        domain: Bound,
        on: Bound,
    ) -> Made<Mpc> {
        Full::activate(w, activation, x, domain, on)
    }

    fn normalise(
        w: &mut Mpc,
        norm: &Norm<Mpc>,
        x: &Secret,
        variance: Bound,
        on: Bound,
    ) -> Made<Mpc> {
        let Norm::Layer { gain, bias, eps } = norm else {
            return Full::normalise(w, norm, x, variance, on);
        };
        let eps = eps.to_f64();
        // A row without variance still has eps.
        let (lo, hi) = variance.range.map_or((0.0, libm::exp2(UNKNOWN.into())), |r| {
            (r.lo.to_f64().max(0.0) / MARGIN, r.hi.to_f64() * MARGIN)
        });
        let floor = libm::exp2(-f64::from(w.format().fraction));
        let domain = ((lo + eps).max(floor), hi + eps);
        let form = w.roomy(x, FACTOR + 10, x.range + 1)?;
        let affine = Some((&gain.wire, &bias.wire));
        let y = w.layer_norm(&form, affine, eps, domain)?;
        // |x − mean|/σ ≤ √n
        let derived = log2_ceil(x.value.shape.cols) / 2 + 1 + gain.range;
        Ok(Secret::new(y, magnitude(on, derived)))
    }
}
