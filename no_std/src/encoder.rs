//! Transformer encoders over the world traits: pre-norm and post-norm blocks, heterogeneous heads.

use crate::attention::{Context, Heads, Kind};
use crate::{Approximate, Multiply};
use crate::{Axis, Domains, Fault, Function, Made, Mask, Menu, Num, Role, Site, World};

/// Groups of equal heads that one layer may have.
pub const MAX_GROUPS: usize = 8;

/// Adjacent heads of one kind. Heads are permuted when a model is loaded so that equal kinds are
/// adjacent: one batched call per kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of heads.
    pub heads: usize,
    /// Their attention.
    pub kind: Kind,
}

/// The groups of one layer, in place: a layer of them can be a constant in flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    len: usize,
    all: [Group; MAX_GROUPS],
}

impl Groups {
    /// So many groups; `None` beyond [`MAX_GROUPS`].
    #[must_use]
    pub const fn new(groups: &[Group]) -> Option<Self> {
        if groups.len() > MAX_GROUPS {
            return None;
        }
        let mut all = [Group { heads: 0, kind: Kind::Uniform }; MAX_GROUPS];
        let mut i = 0;
        while i < groups.len() {
            all[i] = groups[i];
            i += 1;
        }
        Some(Self { len: groups.len(), all })
    }
}

impl core::ops::Deref for Groups {
    type Target = [Group];
    fn deref(&self) -> &[Group] {
        self.all.get(..self.len).unwrap_or_default()
    }
}

/// A row norm.
pub enum Norm<W: World> {
    /// LayerNorm.
    Layer {
        /// Gain per channel, (1, 1, m).
        gain: W::Public,
        /// Bias per channel, (1, 1, m).
        bias: W::Public,
        /// ε added to the variance.
        eps: Num,
    },
    /// A folded BatchNorm: gain and bias only.
    Affine {
        /// Gain per channel, (1, 1, m).
        gain: W::Public,
        /// Bias per channel, (1, 1, m).
        bias: W::Public,
    },
}

/// The activation of a feed-forward block.
pub enum Activation<W: World> {
    /// None.
    Identity,
    /// A function that the world approximates.
    Map(Function),
    /// max(x, 0).
    Relu,
    /// a·x² + b·x with coefficients per channel, (1, 1, m).
    Quadratic {
        /// a
        a: W::Public,
        /// b
        b: W::Public,
    },
}

/// Whether norms stand before attention and feed-forward or after the residual connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NormPosition {
    /// x + f(norm(x)): ViT.
    Pre,
    /// norm(x + f(x)): BERT.
    Post,
}

/// The weights of one encoder layer. Linear weights carry their bias.
pub struct Layer<W: World> {
    /// Query projection, scaled by d^-1/2.
    pub query: W::Public,
    /// Key projection.
    pub key: W::Public,
    /// Value projection.
    pub value: W::Public,
    /// A factor a channel of what the heads give, (1, 1, m): what signed values stand for.
    pub context_scale: Option<W::Public>,
    /// Output projection.
    pub out: W::Public,
    /// First feed-forward projection.
    pub up: W::Public,
    /// Second feed-forward projection; without it the activation's output is the block's
    /// (MPCViT+, where a removed GELU lets both projections become one).
    pub down: Option<W::Public>,
    /// The norm of the attention half.
    pub norm1: Norm<W>,
    /// The norm of the feed-forward half.
    pub norm2: Norm<W>,
    /// The activation after the first feed-forward projection.
    pub activation: Activation<W>,
    /// Kinds of attention, adjacent heads together.
    pub groups: Groups,
    /// Where the norms stand.
    pub position: NormPosition,
}

/// A whole encoder around its layers.
pub struct Encoder<W: World, L: AsRef<[Layer<W>]>> {
    /// Input projection, if the input is not embedded yet: (k → m).
    pub embed: Option<W::Public>,
    /// Position embedding, (1, n, m), with a class token folded in.
    pub position: Option<W::Public>,
    /// Norm after the embedding (BERT).
    pub embed_norm: Option<Norm<W>>,
    /// The layers.
    pub layers: L,
    /// Norm after the last layer (ViT).
    pub final_norm: Option<Norm<W>>,
    /// What the classifier sees.
    pub pooling: Pooling,
    /// The classifier.
    pub classifier: Option<W::Public>,
}

/// What is made of the tokens after the last layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    First,
    /// Nothing: all tokens go on.
    None,
}

impl<W: Multiply + Approximate, L: AsRef<[Layer<W>]>> Encoder<W, L> {
    /// Runs the encoder: (b, n, k) gives (b, 1, classes), or (b, n, classes) where nothing is
    /// pooled; without a classifier the width instead of the classes.
    ///
    /// # Errors
    /// Shapes that do not go together, operators that the menu does not offer, missing ranges,
    /// and the world's own errors.
    pub fn run<M: Menu<W>>(
        &self,
        w: &mut W,
        input: W::Secret,
        mask: &Mask<'_>,
        domains: &dyn Domains,
    ) -> Made<W> {
        let outside = |role| domains.bound(Site::outside(role));
        w.phase("embedding");
        let mut x = input;
        if let Some(embed) = &self.embed {
            x = w.matmul_public(&x, embed, outside(Role::Embedding))?;
        }
        if let Some(position) = &self.position {
            x = w.add_public(x, position, outside(Role::Embedding))?;
        }
        if let Some(norm) = &self.embed_norm {
            x = M::normalise(w, norm, &x, outside(Role::FinalVariance), outside(Role::Embedding))?;
        }
        for (number, layer) in self.layers.as_ref().iter().enumerate() {
            let number = number as u16;
            let [next] = w.scope(|w| Ok([layer.run::<M>(w, &x, number, mask, domains)?]))?;
            x = w.replace(x, next)?;
        }
        w.phase("head");
        if let Some(norm) = &self.final_norm {
            let (variance, on) = (outside(Role::FinalVariance), outside(Role::FinalNorm));
            x = M::normalise(w, norm, &x, variance, on)?;
        }
        x = match self.pooling {
            Pooling::None => x,
            Pooling::First => w.rows(&x, 0, 1)?,
            Pooling::Mean => {
                let on = outside(Role::Pooled);
                let n = w.shape(&x).rows;
                if mask.lengths.is_some() {
                    return Err(Fault::Parameter {
                        what: "mean pooling with padding",
                        got: n as i64,
                    }
                    .into());
                }
                let sum = w.sum(&x, Axis::Rows, on.inner())?;
                w.scale(sum, Num::int(n as i64).inverse(), on)?
            }
        };
        match &self.classifier {
            Some(classifier) => w.matmul_public(&x, classifier, outside(Role::Logits)),
            None => Ok(x),
        }
    }
}

impl<W: Multiply + Approximate> Layer<W> {
    /// Runs the layer as number `number` of its model: (b, n, m) gives (b, n, m).
    ///
    /// # Errors
    /// As [`Encoder::run`].
    pub fn run<M: Menu<W>>(
        &self,
        w: &mut W,
        x: &W::Secret,
        number: u16,
        mask: &Mask<'_>,
        domains: &dyn Domains,
    ) -> Made<W> {
        let bound = |role| domains.bound(Site::layer(number, role));
        match self.position {
            NormPosition::Pre => {
                let [x] = w.scope(|w| {
                    w.phase("attention");
                    let normed = self.norm::<M>(w, &self.norm1, x, number, domains, true)?;
                    let attended = self.attend::<M>(w, &normed, number, mask, domains)?;
                    Ok([w.add(attended, x, bound(Role::Residual1))?])
                })?;
                w.phase("mlp");
                let normed = self.norm::<M>(w, &self.norm2, &x, number, domains, false)?;
                let y = self.feed_forward::<M>(w, &normed, number, domains)?;
                w.add(y, &x, bound(Role::Residual2))
            }
            NormPosition::Post => {
                let [x] = w.scope(|w| {
                    w.phase("attention");
                    let attended = self.attend::<M>(w, x, number, mask, domains)?;
                    let sum = w.add(attended, x, bound(Role::Residual1))?;
                    Ok([self.norm::<M>(w, &self.norm1, &sum, number, domains, true)?])
                })?;
                w.phase("mlp");
                let y = self.feed_forward::<M>(w, &x, number, domains)?;
                let sum = w.add(y, &x, bound(Role::Residual2))?;
                self.norm::<M>(w, &self.norm2, &sum, number, domains, false)
            }
        }
    }

    fn norm<M: Menu<W>>(
        &self,
        w: &mut W,
        norm: &Norm<W>,
        x: &W::Secret,
        number: u16,
        domains: &dyn Domains,
        first: bool,
    ) -> Made<W> {
        let (variance, out) =
            if first { (Role::Variance1, Role::Norm1) } else { (Role::Variance2, Role::Norm2) };
        let bound = |role| domains.bound(Site::layer(number, role));
        M::normalise(w, norm, x, bound(variance), bound(out))
    }

    /// Projections, attention of every group, output projection.
    fn attend<M: Menu<W>>(
        &self,
        w: &mut W,
        x: &W::Secret,
        number: u16,
        mask: &Mask<'_>,
        domains: &dyn Domains,
    ) -> Made<W> {
        let bound = |role| domains.bound(Site::layer(number, role));
        let [context] = w.scope(|w| {
            let [q, k, v] = w.project(
                x,
                [
                    (&self.query, bound(Role::Query)),
                    (&self.key, bound(Role::Key)),
                    (&self.value, bound(Role::Value)),
                ],
            )?;
            let heads: usize = self.groups.iter().map(|g| g.heads).sum();
            let at = Mixture { mask, number, domains, heads };
            let context = at.run::<W, M>(w, &self.groups, 0, 0, Heads { q, k, v })?;
            Ok([match &self.context_scale {
                Some(scale) => w.mul_public(context, scale, bound(Role::Context))?,
                None => context,
            }])
        })?;
        w.matmul_public(&context, &self.out, bound(Role::Attended))
    }

    fn feed_forward<M: Menu<W>>(
        &self,
        w: &mut W,
        x: &W::Secret,
        number: u16,
        domains: &dyn Domains,
    ) -> Made<W> {
        let bound = |role| domains.bound(Site::layer(number, role));
        let [y] = w.scope(|w| {
            let hidden = w.matmul_public(x, &self.up, bound(Role::Hidden))?;
            let on = bound(if self.down.is_some() { Role::Activated } else { Role::Mlp });
            let active = M::activate(w, &self.activation, hidden, bound(Role::Hidden), on)?;
            Ok([match &self.down {
                Some(down) => w.matmul_public(&active, down, bound(Role::Mlp))?,
                None => active,
            }])
        })?;
        Ok(y)
    }
}

/// Attention of heads of several kinds: one batched call a kind, all of them independent.
struct Mixture<'a> {
    mask: &'a Mask<'a>,
    number: u16,
    domains: &'a dyn Domains,
    heads: usize,
}

impl Mixture<'_> {
    /// Runs the groups from number `index` on; `first` heads are behind. Q, K and V hold all
    /// heads as (b, n, h·d).
    fn run<W: Multiply + Approximate, M: Menu<W>>(
        &self,
        w: &mut W,
        groups: &[Group],
        index: u8,
        first: usize,
        x: Heads<W>,
    ) -> Made<W> {
        let Some((group, rest)) = groups.split_first() else {
            return Err(Fault::Parameter { what: "number of head groups", got: 0 }.into());
        };
        let site = Site { layer: self.number, group: index, role: Role::Context };
        let at = Context { mask: *self.mask, site, domains: self.domains };
        if rest.is_empty() && first == 0 {
            return one_group::<W, M>(w, group, x, &at);
        }
        let d = w.shape(&x.q).cols / self.heads;
        let own = take(w, &x, first * d, group.heads * d)?;
        if rest.is_empty() {
            return one_group::<W, M>(w, group, own, &at);
        }
        let (a, b) = w.join(
            |w| one_group::<W, M>(w, group, own, &at),
            |w| self.run::<W, M>(w, rest, index + 1, first + group.heads, x),
        )?;
        w.concat(a, &b, self.domains.bound(Site::layer(self.number, Role::Context)))
    }
}

fn take<W: World>(w: &mut W, x: &Heads<W>, from: usize, len: usize) -> Result<Heads<W>, W::Error> {
    Ok(Heads {
        q: w.columns(&x.q, from, len)?,
        k: w.columns(&x.k, from, len)?,
        v: w.columns(&x.v, from, len)?,
    })
}

fn one_group<W: Multiply + Approximate, M: Menu<W>>(
    w: &mut W,
    group: &Group,
    x: Heads<W>,
    at: &Context<'_>,
) -> Made<W> {
    let split = Heads {
        q: w.split_heads(x.q, group.heads)?,
        k: w.split_heads(x.k, group.heads)?,
        v: w.split_heads(x.v, group.heads)?,
    };
    let out = M::attend(w, &group.kind, split, at)?;
    w.merge_heads(out, group.heads)
}
