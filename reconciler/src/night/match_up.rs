//! Sets bill lines and measured usage against estimates, at the coarsest grain that the bill has. Names are matched as
//! `names` says; whatever remains in doubt is joined: the sum of a group is right, and a guess may not be.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Classes, Union};
use super::outcome::Options;
use super::read::{ProviderFacts, UNCERTAIN_TIER, counted_calls, input_tokens};
pub use super::spread::{DailyEstimates, spread_over_days};
pub(super) use super::units::{line_quantity, tier_name};
use crate::bill::{BillLine, MeasuredUsage, Meter, Quantity};

/// Estimates that differ in their owner only, summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) account: String,
    pub(super) model: String,
    pub(super) meter: Meter,
    pub(super) tier: String,
    pub(super) estimated: i128,
    pub(super) metered: i128,
    pub(super) requests: u64,
    pub(super) uncertain: i128,
}

impl Counted {
    /// Whether it stands for requests of unknown usage.
    pub(super) fn floats(&self) -> bool {
        self.tier == UNCERTAIN_TIER
    }
}

/// What is explained together.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Places of bill lines.
    pub(super) lines: Vec<usize>,
    /// Its parts by model and meter.
    pub(super) cells: Vec<Cell>,
    /// Classes of models in it. Empty with `any_model`: lines that name no model.
    pub(super) classes: BTreeSet<usize>,
    /// Whether a line in it covers every model.
    pub(super) any_model: bool,
    /// Accounts of its lines, measured usage and estimates.
    pub(super) accounts: BTreeSet<String>,
    /// Known credentials whose use it is; an empty one for use without. Those measured, if any were.
    pub(super) credentials: BTreeSet<String>,
    /// Projects likewise.
    pub(super) projects: BTreeSet<String>,
    /// Units that are not understood.
    pub(super) units: BTreeSet<String>,
    measured: bool,
}

/// One model (or models that cannot be told apart) and meter within a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) class: Option<usize>,
    pub(super) meter: Option<Meter>,
    /// Places of its estimates.
    pub(super) keys: Vec<usize>,
    /// What the provider says was used in all, in units of 1e-12. `None` when it does not say.
    pub(super) quantity: Option<i128>,
    /// The part of that by credentials that the gateway does not hold.
    pub(super) strangers: BTreeMap<String, i128>,
}

/// A unit, matched.
#[derive(Clone, Debug, Default)]
pub(super) struct Matched {
    pub(super) groups: Vec<Group>,
    /// Lines that name no model and are nobody's by name: for tags.
    pub(super) loose: Vec<usize>,
    /// Classes of the models of `counted`, at the same places.
    pub(super) classes: Vec<Option<usize>>,
    /// The name of each class: ours where it has a single one.
    pub(super) names: BTreeMap<usize, String>,
}

/// What matching looks at.
pub(super) struct Sides<'a> {
    pub(super) counted: &'a [Counted],
    /// Usage lines whose credential is not a stranger's.
    pub(super) lines: &'a [&'a BillLine],
    pub(super) usage: &'a [MeasuredUsage],
    /// Which of that belongs to these lines.
    pub(super) counts: &'a dyn Fn(&MeasuredUsage, Meter) -> bool,
    pub(super) facts: &'a ProviderFacts,
}

/// Measured usage by meter.
fn measured(usage: &MeasuredUsage) -> [(Meter, u64); 5] {
    [
        (Meter::Input, input_tokens(&usage.tokens)),
        (Meter::CacheRead, usage.tokens.cache_read_total()),
        (Meter::CacheWrite, usage.tokens.cache_write_total()),
        (Meter::Output, usage.tokens.output_total()),
        (Meter::Calls, counted_calls(&usage.tokens, &usage.calls)),
    ]
}

fn account_fits(one: &str, other: &str) -> bool {
    one == other || one.is_empty() || other.is_empty()
}

fn tier_fits(theirs: Option<&str>, ours: &str) -> bool {
    theirs.is_none_or(|tier| tier_name(tier) == ours)
}

fn meter_fits(one: Meter, other: Meter) -> bool {
    one == other || one == Meter::Whole || other == Meter::Whole
}

/// Matches both sides of a unit.
pub(super) fn match_up(sides: &Sides<'_>, options: &Options) -> Matched {
    Matching::new(sides, options).run()
}

struct Matching<'a> {
    sides: &'a Sides<'a>,
    options: &'a Options,
    models: Classes,
    /// The classes of estimates and of lines, at their places.
    key_classes: Vec<Option<usize>>,
    line_classes: Vec<Option<usize>>,
    /// Whether a line that names a model could hold an estimate, were it of that model.
    named: Vec<bool>,
    /// Estimates, then lines, then measured usage by meter.
    joined: Union,
    loose: BTreeSet<usize>,
    measured: Vec<Measured>,
}

/// One meter of one row of measured usage.
#[derive(Clone, Copy)]
struct Measured {
    atom: usize,
    usage: usize,
    meter: Meter,
    count: u64,
}

impl<'a> Matching<'a> {
    fn new(sides: &'a Sides<'a>, options: &'a Options) -> Self {
        let ours = sides.counted.iter().map(|c| c.model.as_str()).filter(|m| !m.is_empty());
        let billed = sides.lines.iter().filter_map(|line| line.model.as_deref());
        let theirs = billed.chain(sides.usage.iter().map(|usage| usage.model.as_str()));
        let models = Classes::new(&ours.collect(), &sides.facts.aliases, &theirs.collect());
        let first = sides.counted.len() + sides.lines.len();
        let meters = sides.usage.iter().enumerate().flat_map(|(at, usage)| {
            let meters = measured(usage).into_iter();
            let counted = meters.filter(move |(meter, _)| (sides.counts)(usage, *meter));
            counted.map(move |(meter, count)| (at, meter, count))
        });
        let measured: Vec<Measured> = meters
            .enumerate()
            .map(|(at, (usage, meter, count))| Measured { atom: first + at, usage, meter, count })
            .collect();
        let class = |line: &&BillLine| line.model.as_deref().and_then(|m| models.theirs(m));
        let held = |counted: &Counted| {
            sides.lines.iter().any(|line| {
                line.model.is_some()
                    && account_fits(&line.account, &counted.account)
                    && meter_fits(line.meter, counted.meter)
            })
        };
        Self {
            sides,
            options,
            key_classes: sides.counted.iter().map(|c| models.ours(&c.model)).collect(),
            line_classes: sides.lines.iter().map(class).collect(),
            named: sides.counted.iter().map(held).collect(),
            models,
            joined: Union::new(first + measured.len()),
            loose: BTreeSet::new(),
            measured,
        }
    }

    fn run(mut self) -> Matched {
        self.join_lines();
        self.join_leftovers();
        self.join_measured();
        self.groups()
    }

    fn atom_of_line(&self, line: usize) -> usize {
        self.sides.counted.len() + line
    }

    fn key_class(&self, key: usize) -> Option<usize> {
        self.key_classes.get(key).copied().flatten()
    }

    fn line_class(&self, line: usize) -> Option<usize> {
        self.line_classes.get(line).copied().flatten()
    }

    /// Whether a line is about the model of an estimate.
    fn model_fits(&self, at: usize, line: &BillLine, key: usize) -> bool {
        if line.model.is_some() {
            return self.line_class(at).is_some() && self.line_class(at) == self.key_class(key);
        }
        // A line for all models holds what the lines with models leave.
        !self.named.get(key).copied().unwrap_or(false)
    }

    fn join_lines(&mut self) {
        let any_named = self.sides.lines.iter().any(|line| line.model.is_some());
        for (at, line) in self.sides.lines.iter().enumerate() {
            let mut found = false;
            for (key, counted) in self.sides.counted.iter().enumerate() {
                let fits = !counted.floats()
                    && account_fits(&line.account, &counted.account)
                    && meter_fits(line.meter, counted.meter)
                    && tier_fits(line.tier.as_deref(), &counted.tier)
                    && self.model_fits(at, line, key);
                if fits {
                    self.joined.join(key, self.atom_of_line(at));
                    found = true;
                }
            }
            // Use without any estimate: a model that was measured tells it from other costs.
            let used = !any_named && (!self.measured.is_empty() || self.any_floating());
            if line.model.is_none() && !found && !used {
                self.loose.insert(at);
            }
        }
    }

    fn any_floating(&self) -> bool {
        self.sides.counted.iter().any(Counted::floats)
    }

    /// Estimates and lines that differ in their tier only, and would fill each other's gaps: the provider used, or names,
    /// another tier than was priced. One side has no partner, and the other has none either, or a quantity amiss.
    fn join_leftovers(&mut self) {
        // Asked of the groups as they are now, so that the order of lines changes nothing.
        let line_roots: Vec<usize> = (0..self.sides.lines.len())
            .map(|at| self.joined.find(self.sides.counted.len() + at))
            .collect();
        let key_roots: Vec<usize> =
            (0..self.sides.counted.len()).map(|key| self.joined.find(key)).collect();
        let (with_line, with_key): (BTreeSet<usize>, BTreeSet<usize>) =
            (line_roots.iter().copied().collect(), key_roots.iter().copied().collect());
        let beyond = self.beyond(&line_roots, &key_roots);
        let beyond = |root: &usize| beyond.get(root).copied().unwrap_or(0);
        for ((at, line), line_root) in self.sides.lines.iter().enumerate().zip(&line_roots) {
            if line.model.is_none() {
                continue;
            }
            for ((key, counted), key_root) in self.sides.counted.iter().enumerate().zip(&key_roots)
            {
                let (line_alone, key_alone) =
                    (!with_key.contains(line_root), !with_line.contains(key_root));
                let fits = ((line_alone && (key_alone || beyond(key_root) < 0))
                    || (key_alone && beyond(line_root) > 0))
                    && !counted.floats()
                    && account_fits(&line.account, &counted.account)
                    && meter_fits(line.meter, counted.meter)
                    && self.model_fits(at, line, key);
                if fits {
                    self.joined.join(key, self.atom_of_line(at));
                }
            }
        }
    }

    /// How much more than was counted is billed, of groups that know their quantities.
    fn beyond(&mut self, line_roots: &[usize], key_roots: &[usize]) -> BTreeMap<usize, i128> {
        let closed = self.closed_groups();
        let mut beyond: BTreeMap<usize, i128> = BTreeMap::new();
        let lines = line_roots.iter().zip(self.sides.lines.iter().map(|line| line_quantity(line)));
        let keys = key_roots.iter().zip(self.sides.counted.iter().map(|c| Some(-c.metered)));
        for (root, quantity) in lines.chain(keys).filter(|(root, _)| closed.contains(root)) {
            let sum = beyond.entry(*root).or_default();
            *sum = sum.saturating_add(quantity.unwrap_or(0));
        }
        beyond
    }

    /// Whether all that a group is billed has its quantity.
    fn closed_groups(&mut self) -> BTreeSet<usize> {
        let (mut billed, mut open) = (BTreeSet::new(), BTreeSet::new());
        for (at, line) in self.sides.lines.iter().enumerate() {
            let atom = self.atom_of_line(at);
            let group = self.joined.find(atom);
            billed.insert(group);
            if line_quantity(line).is_none() {
                open.insert(group);
            }
        }
        billed.difference(&open).copied().collect()
    }

    fn join_measured(&mut self) {
        let closed = self.closed_groups();
        let mut before = self.joined.clone();
        let mut kept = Vec::new();
        for measured in std::mem::take(&mut self.measured) {
            let atoms = self.atoms_of(&measured);
            let groups: BTreeSet<usize> = atoms.iter().map(|atom| before.find(*atom)).collect();
            let open: Vec<usize> = groups.difference(&closed).copied().collect();
            let belongs = match (open.len(), groups.len()) {
                (0, 0) => measured.count > 0,
                // Groups that know their quantities learn nothing from a sum over several.
                (0, count) => count == 1,
                _ => true,
            };
            if belongs {
                let of = if open.is_empty() { groups.into_iter().collect() } else { open };
                of.iter().for_each(|group| self.joined.join(measured.atom, *group));
                kept.push(measured);
            }
        }
        self.measured = kept;
    }

    /// The estimates and lines that a measured row is about.
    fn atoms_of(&self, measured: &Measured) -> Vec<usize> {
        let Some(usage) = self.sides.usage.get(measured.usage) else { return Vec::new() };
        let (class, tier) = (self.models.theirs(&usage.model), usage.tier.as_deref());
        let key_fits = |key: usize, counted: &Counted| {
            !counted.floats()
                && account_fits(&usage.account, &counted.account)
                && counted.meter == measured.meter
                && tier_fits(tier, &counted.tier)
                && self.key_class(key) == class
        };
        let keys = self.sides.counted.iter().enumerate();
        let mut atoms: Vec<usize> =
            keys.filter(|(key, counted)| key_fits(*key, counted)).map(|(key, _)| key).collect();
        let line_fits = |at: usize, line: &BillLine| {
            account_fits(&usage.account, &line.account)
                && meter_fits(line.meter, measured.meter)
                && line.tier.as_deref().is_none_or(|line| tier_fits(tier, tier_name(line)))
                && (line.model.is_none() || self.line_class(at) == class)
        };
        for (at, line) in self.sides.lines.iter().enumerate() {
            if !self.loose.contains(&at) && line_fits(at, line) {
                atoms.push(self.atom_of_line(at));
            }
        }
        atoms
    }

    fn groups(mut self) -> Matched {
        let closed = self.closed_groups();
        let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
        for (at, line) in self.sides.lines.iter().enumerate() {
            if self.loose.contains(&at) {
                continue;
            }
            let atom = self.atom_of_line(at);
            let group = groups.entry(self.joined.find(atom)).or_default();
            group.lines.push(at);
            group.accounts.insert(line.account.clone());
            group.credentials.insert(line.credential.clone().unwrap_or_default());
            group.projects.insert(line.project.clone().unwrap_or_default());
            group.any_model |= line.model.is_none();
            group.classes.extend(self.line_class(at));
            if line_quantity(line).is_none() && line.quantity.is_some() {
                group.units.insert(line.unit.clone().unwrap_or_default());
            }
        }
        for (key, counted) in self.sides.counted.iter().enumerate() {
            if counted.floats() {
                continue;
            }
            let root = self.joined.find(key);
            let group = groups.entry(root).or_default();
            let class = self.key_class(key);
            group.classes.extend(class);
            let one = closed.contains(&root) && group.any_model;
            group.cell(class.filter(|_| !one), counted.meter).keys.push(key);
        }
        for (root, group) in &mut groups {
            if closed.contains(root) {
                self.quantities_of_lines(group);
            }
        }
        self.quantities_of_usage(&mut groups, &closed);
        let names = self.names();
        let groups = groups.into_values().collect();
        let loose = self.loose.into_iter().collect();
        Matched { groups, loose, classes: self.key_classes, names }
    }

    fn quantities_of_lines(&self, group: &mut Group) {
        for at in group.lines.clone() {
            let Some(line) = self.sides.lines.get(at) else { continue };
            let Some(quantity) = line_quantity(line) else { continue };
            let class = self.line_class(at).filter(|_| !group.any_model);
            let cell = group.cell(class, line.meter);
            cell.quantity = Some(cell.quantity.unwrap_or(0).saturating_add(quantity));
        }
    }

    fn quantities_of_usage(
        &mut self,
        groups: &mut BTreeMap<usize, Group>,
        closed: &BTreeSet<usize>,
    ) {
        for Measured { atom, usage, meter, count } in std::mem::take(&mut self.measured) {
            let Some(usage) = self.sides.usage.get(usage) else { continue };
            let root = self.joined.find(atom);
            let is_closed = closed.contains(&root);
            let stranger = usage.credential.as_ref().filter(|id| self.options.is_stranger(id));
            let group = groups.entry(root).or_default();
            let class = self.models.theirs(&usage.model);
            if count > 0 {
                group.accounts.insert(usage.account.clone());
                group.classes.extend(class);
                if stranger.is_none() && !is_closed {
                    group.measured_by(usage);
                }
            }
            let class = class.filter(|_| !(is_closed && group.any_model));
            let there = group.cells.iter().any(|c| c.class == class && c.meter == Some(meter));
            // Providers that count no calls send none: a 0 there says nothing.
            if count == 0 && (!there || meter == Meter::Calls) {
                continue;
            }
            let quantity = Quantity::whole(count).pico();
            let cell = group.cell(class, meter);
            if !is_closed {
                cell.quantity = Some(cell.quantity.unwrap_or(0).saturating_add(quantity));
            }
            if let Some(id) = stranger {
                let sum = cell.strangers.entry(id.clone()).or_default();
                *sum = sum.saturating_add(quantity);
            }
        }
    }

    fn names(&self) -> BTreeMap<usize, String> {
        let mut ours: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for counted in self.sides.counted {
            if let Some(class) = self.models.ours(&counted.model) {
                ours.entry(class).or_default().insert(&counted.model);
            }
        }
        let billed = self.sides.lines.iter().filter_map(|line| line.model.as_deref());
        let theirs = billed.chain(self.sides.usage.iter().map(|usage| usage.model.as_str()));
        let mut names: BTreeMap<usize, String> = BTreeMap::new();
        for model in theirs.collect::<BTreeSet<_>>() {
            if let Some(class) = self.models.theirs(model) {
                names.entry(class).or_insert_with(|| model.to_owned());
            }
        }
        for (class, models) in ours {
            if let (1, Some(model)) = (models.len(), models.first()) {
                names.insert(class, (*model).to_owned());
            } else {
                names.entry(class).or_insert_with(|| {
                    models.first().map(|model| (*model).to_owned()).unwrap_or_default()
                });
            }
        }
        names
    }
}

impl Group {
    /// Takes note of whose use was measured: it is finer than what lines say.
    fn measured_by(&mut self, usage: &MeasuredUsage) {
        if !std::mem::replace(&mut self.measured, true) {
            self.credentials.clear();
            self.projects.clear();
        }
        self.credentials.insert(usage.credential.clone().unwrap_or_default());
        self.projects.insert(usage.project.clone().unwrap_or_default());
    }

    /// The cell of a model and meter, made where there is none.
    fn cell(&mut self, class: Option<usize>, meter: Meter) -> &mut Cell {
        let is = |cell: &Cell| cell.class == class && cell.meter == Some(meter);
        let at = self.cells.iter().position(is).unwrap_or(self.cells.len());
        if at == self.cells.len() {
            self.cells.push(Cell { class, meter: Some(meter), ..Cell::default() });
        }
        // The place exists: it was found, or made just now.
        #[allow(clippy::indexing_slicing)]
        &mut self.cells[at]
    }
}

impl Options {
    /// Whether a credential is known not to be the gateway's.
    pub(super) fn is_stranger(&self, credential: &str) -> bool {
        !self.known_credentials.is_empty() && !self.known_credentials.contains(credential)
    }
}
