//! Calibrated ranges: from `config.json` to the core and back.
//!
//! In `config.json` a range stands under the name of its role, with `.1`, `.2`, … for the second
//! and later groups of equal heads in a layer: `"scores"`, `"scores.1"`. Ranges of a layer stand
//! in the layer's entry, those around the layers in `undertone.domains`.

use std::collections::BTreeMap;

use undertone_core::{Bound, Domains, Num, Range, Role, Site};

use crate::config::{self, Config};

/// The calibrated ranges of a model, looked up by site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    ranges: BTreeMap<Site, (f64, f64)>,
}

impl Calibration {
    /// The ranges that a configuration holds. Names that are no role of the core are refused.
    ///
    /// # Errors
    /// The unknown name.
    pub fn from_config(config: &Config) -> Result<Self, UnknownSite> {
        Self::from_domains(&config.domains, config.layers.iter().map(|layer| &layer.domains))
    }

    /// The ranges around the layers and of each layer.
    ///
    /// # Errors
    /// The first name that is no role of the core.
    pub fn from_domains<'a>(
        outside: &config::Domains,
        layers: impl IntoIterator<Item = &'a config::Domains>,
    ) -> Result<Self, UnknownSite> {
        let mut ranges = BTreeMap::new();
        let mut take = |layer: u16, domains: &config::Domains| {
            for (name, &(lo, hi)) in domains {
                let site = parse(layer, name).ok_or_else(|| UnknownSite(name.clone()))?;
                ranges.insert(site, (lo, hi));
            }
            Ok(())
        };
        take(Site::OUTSIDE, outside)?;
        for (number, layer) in layers.into_iter().enumerate() {
            take(number as u16, layer)?;
        }
        Ok(Self { ranges })
    }

    /// Widens the range at a site to include a value.
    pub fn observe(&mut self, site: Site, lo: f64, hi: f64) {
        let range = self.ranges.entry(site).or_insert((lo, hi));
        *range = (range.0.min(lo), range.1.max(hi));
    }

    /// Widens by everything that another calibration has seen.
    pub fn merge(&mut self, other: &Self) {
        for (&site, &(lo, hi)) in &other.ranges {
            self.observe(site, lo, hi);
        }
    }

    /// The range at a site.
    #[must_use]
    pub fn get(&self, site: Site) -> Option<(f64, f64)> {
        self.ranges.get(&site).copied()
    }

    /// Sites and ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Site, (f64, f64))> + '_ {
        self.ranges.iter().map(|(&site, &range)| (site, range))
    }

    /// Whether nothing has been calibrated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What [`config::update_domains`] writes: the ranges around the layers, and one map a layer.
    #[must_use]
    pub fn to_config(&self, layers: usize) -> (config::Domains, Vec<config::Domains>) {
        let mut outside = config::Domains::new();
        let mut inside = vec![config::Domains::new(); layers];
        for (site, (lo, hi)) in self.iter() {
            let name = match site.group {
                0 => site.role.name().to_owned(),
                group => format!("{}.{group}", site.role.name()),
            };
            let map = match site.layer {
                Site::OUTSIDE => Some(&mut outside),
                layer => inside.get_mut(usize::from(layer)),
            };
            if let Some(map) = map {
                map.insert(name, (round(lo), round(hi)));
            }
        }
        (outside, inside)
    }
}

/// A name in `domains` that is no site of the core.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "config.json: `{0}` in domains is no site; names are those of undertone_core::Role, with `.1` and so on for a further group of heads"
)]
pub struct UnknownSite(pub String);

/// Six significant digits are more than a range means, and keep files short.
fn round(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

fn parse(layer: u16, name: &str) -> Option<Site> {
    let (role, group) = match name.split_once('.') {
        Some((role, group)) => (role, group.parse().ok().filter(|&g: &u8| g > 0)?),
        None => (name, 0),
    };
    let role = Role::ALL.into_iter().find(|r| r.name() == role)?;
    Some(Site { layer, group, role })
}

impl Domains for Calibration {
    fn bound(&self, site: Site) -> Bound {
        // Attention sites within a layer carry their group; all others stand for the whole layer.
        let range = self.get(site).or_else(|| self.get(Site { group: 0, ..site }));
        let range = range.map(|(lo, hi)| Range::new(Num::of(lo), Num::of(hi)));
        Bound { site, range }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_round_trip() {
        let mut calibration = Calibration::default();
        for (number, role) in Role::ALL.into_iter().enumerate() {
            calibration.observe(Site { layer: 1, group: (number % 3) as u8, role }, -1.0, 2.0);
            calibration.observe(Site::outside(role), -0.5, 0.25);
        }
        let (outside, inside) = calibration.to_config(2);
        assert!(inside[0].is_empty());
        let mut back = Calibration::default();
        for (name, (lo, hi)) in outside {
            back.observe(parse(Site::OUTSIDE, &name).unwrap(), lo, hi);
        }
        for (name, &(lo, hi)) in &inside[1] {
            back.observe(parse(1, name).unwrap(), lo, hi);
        }
        assert_eq!(back, calibration);
        assert_eq!(parse(0, "scores.0"), None);
        assert_eq!(parse(0, "score"), None);
    }
}
