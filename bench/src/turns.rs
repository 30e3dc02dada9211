//! Contenders that take turns.

use anyhow::Context;

/// One thing to measure: a name and a way to take a few samples of it.
pub struct Contender<'a> {
    /// As the table shows it.
    pub name: String,
    /// Takes one turn: some samples, all in the table's unit.
    pub turn: Box<dyn FnMut() -> anyhow::Result<Vec<f64>> + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender.
    pub fn new(
        name: impl Into<String>,
        turn: impl FnMut() -> anyhow::Result<Vec<f64>> + 'a,
    ) -> Self {
        Contender {
            name: name.into(),
            turn: Box::new(turn),
        }
    }
}

/// Every contender takes one turn per round, for so many rounds, after one round that does not
/// count. Samples by name, in the order of the contenders.
///
/// # Errors
/// The first turn that fails.
pub fn take_turns(
    contenders: &mut [Contender<'_>],
    rounds: usize,
) -> anyhow::Result<Vec<(String, Vec<f64>)>> {
    let mut all: Vec<(String, Vec<f64>)> = contenders
        .iter()
        .map(|c| (c.name.clone(), Vec::new()))
        .collect();
    for round in 0..=rounds {
        for (contender, (_, samples)) in contenders.iter_mut().zip(&mut all) {
            let taken = (contender.turn)().with_context(|| contender.name.clone())?;
            if round > 0 {
                samples.extend(taken);
            }
        }
    }
    Ok(all)
}
