//! The TFHE world on real ciphertexts: equal to the same circuit on integers, and bootstraps
//! counted by the library equal to the plan.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use undertone_core::{Bound, Multiply, Role, Shape, Site, World};
use undertone_he::tfhe::{Clear, Engine, Evaluator, Head, Keys, Ledger, Precision, Products, Tfhe};

static KEYS: LazyLock<(Keys, Arc<Evaluator>)> = LazyLock::new(|| {
    let (keys, server) = Keys::generate(Precision::Four);
    (keys, Arc::new(server))
});

/// The library counts for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn clear() -> Arc<Clear> {
    Arc::new(Clear::new(4, Precision::Four.noise_limit()))
}

#[test]
fn an_encrypted_head_equals_the_integers_and_its_plan() {
    let _alone = alone();
    let (keys, server) = &*KEYS;
    let head = Head {
        tokens: 2,
        features: 2,
        exponent: 2,
        input: (-2, 1),
        unit: 0,
        row_sums: (2.0, 32.0),
    };
    for products in [Products::Tables, Products::Squares] {
        let x = head.admit(vec![1, -2, -1, 1], vec![1, 1, -2, 0], vec![1, 0, -2, 1]).unwrap();
        let encrypted = keys.encrypt_head(server, &x, head.input).unwrap();
        let ledger = Arc::new(Ledger::new(4, Precision::Four.noise_limit()));
        head.run(&ledger, products, head.planned_inputs()).unwrap();
        let wanted = head.run(&clear(), products, x).unwrap();

        let (ours, theirs) = (server.bootstraps(), tfhe::shortint::server_key::get_pbs_count());
        let found = head.run(server, products, encrypted).unwrap();
        assert_eq!(server.bootstraps() - ours, ledger.bootstraps());
        let counted = tfhe::shortint::server_key::get_pbs_count() - theirs;
        assert_eq!(counted, ledger.bootstraps(), "the library's own count");
        assert_eq!((found.interval(), found.unit()), (wanted.interval(), wanted.unit()));
        assert_eq!(keys.decrypt(server, &found), wanted.cells());
    }
}

#[test]
fn every_entry_of_a_table_comes_out() {
    let _alone = alone();
    let (keys, server) = &*KEYS;
    // All sixteen inputs, negative results among them.
    let table: Vec<i64> = (0..16).map(|x| x * 5 % 16 - 8).collect();
    let xs: Vec<_> = (-3..13).map(|x| keys.encrypt(server, x, (-3, 12)).unwrap()).collect();
    let out = server.look_up(xs, -3, &table).unwrap();
    let world = Tfhe::new(server.clone(), Products::Tables);
    let out = world.admit(Shape::new(1, 1, 16), (-8, 7), 0, out).unwrap();
    assert_eq!(keys.decrypt(server, &out), table);
}

#[test]
fn an_encrypted_argmax_under_the_largest_noise() {
    let _alone = alone();
    let (keys, server) = &*KEYS;
    let row = [-2i64, 3, 1, 3, 0];
    let mut world = Tfhe::new(server.clone(), Products::Tables);
    let xs = row.iter().map(|&x| keys.encrypt(server, x, (-4, 3)).unwrap()).collect();
    let x = world.admit(Shape::new(1, 1, 5), (-4, 3), 0, xs).unwrap();
    let index = world.argmax(&x).unwrap();
    assert_eq!(keys.decrypt(server, &index), [1]);
}

#[test]
fn what_was_not_declared_is_refused() {
    let (keys, server) = &*KEYS;
    assert!(keys.encrypt(server, 4, (-4, 3)).is_err());
    assert!(keys.encrypt(server, 0, (-8, 8)).is_err());
}

#[test]
fn products_of_all_pairs() {
    let _alone = alone();
    let (keys, server) = &*KEYS;
    let on = Bound::unknown(Site::outside(Role::Inner));
    let pairs: Vec<(i64, i64)> = (-2..2).flat_map(|x| (-2..2).map(move |y| (x, y))).collect();
    for products in [Products::Tables, Products::Squares] {
        let mut world = Tfhe::new(server.clone(), products);
        let of = |pick: fn(&(i64, i64)) -> i64| {
            let cells = pairs.iter().map(|p| keys.encrypt(server, pick(p), (-2, 1)).unwrap());
            world.admit(Shape::new(1, 4, 4), (-2, 1), 0, cells.collect()).unwrap()
        };
        let (a, b) = (of(|p| p.0), of(|p| p.1));
        let c = world.mul(a, &b, on).unwrap();
        let wanted: Vec<i64> = pairs.iter().map(|(x, y)| x * y).collect();
        assert_eq!(keys.decrypt(server, &c), wanted);
        assert_eq!(world.shape(&c), Shape::new(1, 4, 4));
    }
}
