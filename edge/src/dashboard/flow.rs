//! A picture of where money flows: columns of boxes, and bands between them as thick as their amounts. Everything is in
//! whole thousandths of the picture's height.

use std::collections::BTreeMap;

use tallygate_shared::money::Usd;

use super::figures;

const WIDTH: i128 = 1_200;
const HEIGHT: i128 = 420;
const BOX_WIDTH: i128 = 14;
/// Between two boxes of a column.
const GAP: i128 = 14;
/// Boxes of a column; what is smaller is one box together.
const MOST: usize = 8;
const OTHERS: &str = "Others";

/// The picture.
#[derive(Debug)]
pub(super) struct Flow {
    /// What it shows, in a sentence.
    pub(super) title: String,
    /// The boxes.
    pub(super) boxes: Vec<Station>,
    /// The bands.
    pub(super) bands: Vec<Band>,
}

/// A box.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Station {
    /// Its left edge.
    pub(super) x: i128,
    /// Its upper edge.
    pub(super) y: i128,
    /// Its height.
    pub(super) height: i128,
    /// Where its name stands.
    pub(super) text_x: i128,
    /// Its name stands to its left.
    pub(super) left: bool,
    /// Its name.
    pub(super) name: String,
    /// Its amount, for the eye.
    pub(super) amount: String,
}

/// A band.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Band {
    /// Its path.
    pub(super) path: String,
    /// From, to and how much.
    pub(super) title: String,
}

/// A way through the columns, and what went it.
pub(super) type Way = (Vec<String>, Usd);

/// The picture of some ways of the same length; `None` of nothing.
pub(super) fn flow(title: &str, ways: &[Way]) -> Option<Flow> {
    // What cost nothing flows nowhere.
    let ways: Vec<Way> = ways.iter().filter(|(_, amount)| amount.pico() > 0).cloned().collect();
    let columns = ways.first()?.0.len();
    let total: i128 = ways.iter().map(|(_, amount)| amount.pico().max(0)).sum();
    if total == 0 || columns < 2 {
        return None;
    }
    let ways = folded(&ways, columns);
    let most = i128::try_from((0..columns).map(|at| sums(&ways, at).len()).max()?).ok()?;
    let scale = Scale { total, height: HEIGHT - (most - 1) * GAP };
    let step = (WIDTH - BOX_WIDTH) / i128::try_from(columns - 1).ok()?;
    let mut picture = Flow { title: title.to_owned(), boxes: Vec::new(), bands: Vec::new() };
    let mut tops: Vec<BTreeMap<String, i128>> = Vec::new();
    for at in 0..columns {
        let x = step * i128::try_from(at).ok()?;
        let mut sums: Vec<(String, i128)> = sums(&ways, at).into_iter().collect();
        sums.sort_by_key(|(name, pico)| (name == OTHERS, std::cmp::Reverse(*pico)));
        let mut y = 0;
        let mut column = BTreeMap::new();
        let left = at + 1 == columns;
        for (name, pico) in sums {
            column.insert(name.clone(), y);
            let height = scale.of(pico).max(1);
            let text_x = if left { x - 6 } else { x + BOX_WIDTH + 6 };
            let amount = figures::money(Usd::from_pico(pico)).shown;
            picture.boxes.push(Station { x, y, height, text_x, left, name, amount });
            y += height + GAP;
        }
        tops.push(column);
    }
    for (at, pair) in tops.windows(2).enumerate() {
        let [from, to] = pair else { continue };
        let x = step * i128::try_from(at).ok()? + BOX_WIDTH;
        picture.bands.extend(bands(&ways, at, x, step - BOX_WIDTH, from, to, &scale));
    }
    Some(picture)
}

struct Scale {
    total: i128,
    height: i128,
}

impl Scale {
    /// The thickness of an amount. A sum of money times a picture's height is far from 128 bits.
    fn of(&self, pico: i128) -> i128 {
        pico.saturating_mul(self.height) / self.total
    }
}

fn sums(ways: &[Way], at: usize) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    for (names, amount) in ways {
        if let Some(name) = names.get(at) {
            *sums.entry(name.clone()).or_default() += amount.pico().max(0);
        }
    }
    sums
}

/// The ways with the small names of each column as one.
fn folded(ways: &[Way], columns: usize) -> Vec<Way> {
    let mut ways = ways.to_vec();
    for at in 0..columns {
        let mut sums: Vec<(String, i128)> = sums(&ways, at).into_iter().collect();
        if sums.len() <= MOST {
            continue;
        }
        sums.sort_by_key(|(_, pico)| std::cmp::Reverse(*pico));
        let small: Vec<String> = sums.into_iter().skip(MOST - 1).map(|(name, _)| name).collect();
        for (names, _) in &mut ways {
            if let Some(name) = names.get_mut(at).filter(|name| small.contains(name)) {
                OTHERS.clone_into(name);
            }
        }
    }
    ways
}

/// The bands between two columns. Each leaves and enters its boxes below the ones before it.
fn bands(
    ways: &[Way],
    at: usize,
    x: i128,
    width: i128,
    from: &BTreeMap<String, i128>,
    to: &BTreeMap<String, i128>,
    scale: &Scale,
) -> Vec<Band> {
    let mut amounts: BTreeMap<(i128, i128), (&str, &str, i128)> = BTreeMap::new();
    for (names, amount) in ways {
        let Some((a, b)) = names.get(at).zip(names.get(at + 1)) else { continue };
        let Some((ya, yb)) = from.get(a).zip(to.get(b)) else { continue };
        let entry = amounts.entry((*ya, *yb)).or_insert((a, b, 0));
        entry.2 += amount.pico().max(0);
    }
    let (mut out, mut into) = (BTreeMap::new(), BTreeMap::new());
    let mut bands = Vec::new();
    for ((ya, yb), (a, b, pico)) in amounts {
        let thick = scale.of(pico).max(1);
        let (left, right) = (out.entry(ya).or_insert(ya), into.entry(yb).or_insert(yb));
        let (l, r) = (*left, *right);
        (*left, *right) = (l + thick, r + thick);
        let (middle, end) = (x + width / 2, x + width);
        let path = format!(
            "M{x} {l}C{middle} {l} {middle} {r} {end} {r}V{}C{middle} {} {middle} {} {x} {}Z",
            r + thick,
            r + thick,
            l + thick,
            l + thick
        );
        let amount = figures::money(Usd::from_pico(pico)).shown;
        bands.push(Band { path, title: format!("{a} to {b}: {amount}") });
    }
    bands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(names: &[&str], usd: &str) -> Way {
        (names.iter().map(|name| (*name).to_owned()).collect(), usd.parse().unwrap())
    }

    #[test]
    fn boxes_and_bands_are_as_thick_as_their_amounts() {
        let ways = [way(&["p", "a"], "3"), way(&["p", "b"], "1"), way(&["q", "b"], "4")];
        let flow = flow("Flow", &ways).unwrap();
        let inner = HEIGHT - GAP;
        let found: Vec<(&str, i128, i128)> =
            flow.boxes.iter().map(|it| (it.name.as_str(), it.y, it.height)).collect();
        let half = inner / 2;
        let five = 5 * inner / 8;
        assert_eq!(
            found,
            [
                ("p", 0, half),
                ("q", half + GAP, half),
                ("b", 0, five),
                ("a", five + GAP, 3 * inner / 8),
            ]
        );
        let titles: Vec<&str> = flow.bands.iter().map(|it| it.title.as_str()).collect();
        assert_eq!(titles, ["p to b: $1.00", "p to a: $3.00", "q to b: $4.00"]);
    }

    #[test]
    fn many_names_become_others_and_nothing_has_no_picture() {
        let ways: Vec<Way> =
            (0..30).map(|n| way(&["p", &format!("m{n:02}")], &(n + 1).to_string())).collect();
        let flow = flow("Flow", &ways).unwrap();
        assert_eq!(flow.boxes.len(), 1 + MOST);
        assert_eq!(flow.boxes.last().map(|it| it.name.as_str()), Some(OTHERS));
        assert!(flow.boxes.iter().all(|it| it.y + it.height <= HEIGHT), "{:?}", flow.boxes);
        assert!(super::flow("Flow", &[]).is_none());
        assert!(super::flow("Flow", &[way(&["p", "a"], "0")]).is_none());
    }
}
