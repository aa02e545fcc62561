//! The runs: by seed, with a failing seed printed; and with faults planted, each of which must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::checks::Truth;
use super::world::World;
use crate::budget::lease::mutants::{Mutant, plant};

/// Steps with one world, before the next seed makes another.
const STEPS_A_WORLD: u64 = 5_000;
/// Steps between the times at which everything comes to rest and the books are compared.
const STEPS_TO_REST: u64 = 1_000;

fn run_world(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for step in 1..=STEPS_A_WORLD {
        world.step();
        if step % (STEPS_TO_REST / 4) == 0 {
            world.calm();
            Truth::check_stranded(&mut world);
        }
        if step % STEPS_TO_REST == 0 {
            world.quiesce();
            Truth::check_at_rest(&mut world);
        }
    }
    world.admitted
}

/// Runs worlds from `seed` on; the first that fails is named.
fn run(seed: u64, steps: u64) -> Result<u64, String> {
    let mut admitted = 0;
    for world in seed..seed + steps.div_ceil(STEPS_A_WORLD) {
        match catch_unwind(AssertUnwindSafe(|| run_world(world))) {
            Ok(count) => admitted += count,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                return Err(format!("SEED={world} STEPS={STEPS_A_WORLD}: {text}"));
            }
        }
    }
    Ok(admitted)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn books_hold_in_every_world() {
    // `make simulate` sets both; `make test` runs a million steps of it.
    let (seed, steps) = (number("SEED", 1), number("STEPS", 100_000));
    let admitted = run(seed, steps).unwrap();
    println!("{steps} steps from seed {seed}: {admitted} requests admitted, every check held");
    assert!(admitted > steps / 50, "a simulation that admits nothing shows nothing");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "millions of steps: `make test` runs it optimised")]
fn every_planted_fault_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let survivors: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|mutant| {
            plant(Some(*mutant));
            let found = run(1, 5_000_000);
            plant(None);
            if let Err(how) = &found {
                println!("{mutant:?}: {how}");
            }
            found.is_ok()
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
