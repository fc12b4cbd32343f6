//! What key exchanges cost. Not run by itself:
//! `cargo test --release -p adit-ike --lib cost -- --ignored --nocapture`

use std::time::{Duration, Instant};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::super::dh::{Job, Outcome, Secret, Work};
use crate::algorithm::Group;

/// The shortest of several runs: what others do on the machine only adds to it.
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn shortest(run: impl Fn() -> Outcome) -> Duration {
    (0..100)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_key_exchanges() {
    let seeded = || ChaCha20Rng::seed_from_u64(1);
    println!("µs: generate, agree, respond");
    for group in Group::ALL.into_iter().chain(Group::ADDITIONAL) {
        let run =
            |work: Work| Job { sa: 1, secret: Secret::random(group, &mut seeded()), work }.run().outcome;
        let Outcome::Generated { public, .. } = run(Work::Generate) else { unreachable!() };
        let Outcome::Responded(Ok((answer, _))) = run(Work::Respond(public.clone())) else { unreachable!() };
        let generate = shortest(|| run(Work::Generate));
        let agree = shortest(|| run(Work::Agree(answer.clone())));
        let respond = shortest(|| run(Work::Respond(public.clone())));
        let micros = [generate, agree, respond].map(|d| format!("{:8.1}", d.as_secs_f64() * 1e6));
        println!("{:>14} {}", group.to_string(), micros.join(" "));
    }
}
