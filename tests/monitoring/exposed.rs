//! What an edge exposes, and whether an expression asks for more.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of each name that has a sample.
pub(super) struct Exposed(BTreeMap<String, BTreeSet<String>>);

/// What Prometheus adds to every sample.
const ADDED: [&str; 2] = ["instance", "job"];
/// The program's names, and others' that the expressions may use.
const PREFIXES: [&str; 2] = ["vestibule_", "process_"];

impl Exposed {
    /// From the text of a scrape.
    pub(super) fn parse(scrape: &str) -> Self {
        let mut names = BTreeMap::from([("up".to_owned(), BTreeSet::new())]);
        for line in scrape.lines().filter(|line| PREFIXES.iter().any(|prefix| line.starts_with(prefix))) {
            let sample = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let own: &mut BTreeSet<String> = names.entry(name.to_owned()).or_default();
            own.extend(words_before(labels, "=\""));
        }
        Self(names)
    }

    /// Panics where the expression has a name or a label that no sample has.
    pub(super) fn check(&self, expression: &str) {
        let mut known: BTreeSet<&str> = ADDED.into();
        let names = Self::names(expression);
        for (name, _) in &names {
            let labels = self.0.get(*name);
            let labels = labels.unwrap_or_else(|| panic!("nothing is called {name}, in {expression}"));
            known.extend(labels.iter().map(String::as_str));
        }
        assert!(!names.is_empty(), "{expression}");
        for (name, rest) in names {
            let matchers =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            let (own, matched) = (&self.0[name], matchers.split(", ").filter(|matcher| !matcher.is_empty()));
            for label in matched.map(|matcher| matcher.split(['=', '!']).next().unwrap()) {
                let has = own.contains(label) || ADDED.contains(&label);
                assert!(has, "{name} has no label {label}, in {expression}");
            }
        }
        for list in ["by (", "on (", "without ("].iter().flat_map(|word| expression.split(word).skip(1)) {
            for label in list.split(')').next().unwrap().split(',').map(str::trim) {
                assert!(known.contains(label), "nothing in {expression} has a label {label}");
            }
        }
    }

    /// The names in an expression, each with what follows it.
    fn names(expression: &str) -> Vec<(&str, &str)> {
        let is_own = |word: &str| word == "up" || PREFIXES.iter().any(|prefix| word.starts_with(prefix));
        let mut names = Vec::new();
        let mut rest = expression;
        while let Some(start) = rest.find(is_letter) {
            let word = &rest[start..];
            let (word, after) = word.split_at(word.find(|letter| !is_letter(letter)).unwrap_or(word.len()));
            if is_own(word) {
                names.push((word, after));
            }
            rest = after;
        }
        names
    }
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The word right before each mark.
fn words_before(text: &str, mark: &str) -> Vec<String> {
    let ends = text.match_indices(mark).map(|(at, _)| &text[..at]);
    ends.map(|before| before.rsplit(|letter| !is_letter(letter)).next().unwrap().to_owned()).collect()
}
