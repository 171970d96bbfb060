//! A world around another one that notes the shape of every result.

use undertone_core::{
    Approximate, Axis, Bound, Compare, Form, Function, Made, Mask, Multiply, Num, Shape, World,
};
use undertone_model::host::{Host, Weight};

/// Passes every operation on to `W` and notes its name and the shape of its result, in order.
#[derive(Debug)]
pub struct Shapes<W> {
    /// The world that computes.
    pub world: W,
    /// What has been made.
    pub made: Vec<(&'static str, Shape)>,
}

impl<W: World> Shapes<W> {
    /// Around a world.
    #[must_use]
    pub const fn new(world: W) -> Self {
        Self { world, made: Vec::new() }
    }

    fn note(&mut self, name: &'static str, made: Made<W>) -> Made<W> {
        if let Ok(x) = &made {
            self.made.push((name, self.world.shape(x)));
        }
        made
    }
}

/// Operations that are passed on as they are.
macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, $($arg: $type),*) -> Made<Self> {
            let made = self.world.$name($($arg),*);
            self.note(stringify!($name), made)
        })*
    };
}

impl<W: World> World for Shapes<W> {
    const NAME: &'static str = W::NAME;
    type Secret = W::Secret;
    type Public = W::Public;
    type Error = W::Error;

    fn shape(&self, x: &W::Secret) -> Shape {
        self.world.shape(x)
    }

    passed_on! {
        copy(x: &W::Secret);
        add(a: W::Secret, b: &W::Secret, on: Bound);
        sub(a: W::Secret, b: &W::Secret, on: Bound);
        scale(a: W::Secret, k: Num, on: Bound);
        offset(a: W::Secret, k: Num, on: Bound);
        add_public(a: W::Secret, p: &W::Public, on: Bound);
        mul_public(a: W::Secret, p: &W::Public, on: Bound);
        matmul_public(x: &W::Secret, w: &W::Public, on: Bound);
        sum(a: &W::Secret, axis: Axis, on: Bound);
        rows(a: &W::Secret, from: usize, len: usize);
        repeat_rows(a: &W::Secret, n: usize);
        columns(a: &W::Secret, from: usize, len: usize);
        concat(a: W::Secret, b: &W::Secret, on: Bound);
        split_heads(a: W::Secret, heads: usize);
        merge_heads(a: W::Secret, heads: usize);
        divide_by_count(a: W::Secret, mask: &Mask<'_>, keys: usize, on: Bound);
    }

    fn mask(&mut self, a: W::Secret, mask: &Mask<'_>, fill: Num) -> Made<Self> {
        let made = self.world.mask(a, mask, fill);
        // A mask that hides nothing is no operation.
        if mask.is_none() { made } else { self.note("mask", made) }
    }
}

impl<W: Multiply> Multiply for Shapes<W> {
    passed_on! {
        mul(a: W::Secret, b: &W::Secret, on: Bound);
        square(a: W::Secret, on: Bound);
        matmul(a: &W::Secret, b: &W::Secret, form: Form, on: Bound);
    }
}

impl<W: Approximate> Approximate for Shapes<W> {
    passed_on! { map(a: W::Secret, f: Function, domain: Bound, on: Bound); }
}

impl<W: Compare> Compare for Shapes<W> {
    passed_on! {
        relu(a: W::Secret, on: Bound);
        max(a: &W::Secret);
    }
}

impl<W: Host> Host for Shapes<W> {
    passed_on! { secret(shape: Shape, values: &[f32], on: Bound); }

    fn linear(&mut self, weight: Weight<'_>) -> Result<W::Public, W::Error> {
        self.world.linear(weight)
    }

    fn vector(&mut self, shape: Shape, values: &[f32]) -> Result<W::Public, W::Error> {
        self.world.vector(shape, values)
    }

    fn reveal(&mut self, x: &W::Secret) -> Result<Vec<f32>, W::Error> {
        self.world.reveal(x)
    }
}
