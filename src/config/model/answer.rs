//! What the edge does with requests and answers of its own accord.

/// What a route adds to passing on: its own keys over those of its site. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is changed on every answer.
    pub headers: Headers,
}

/// Header fields of answers, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// These stand once, with this value, whatever the upstream says.
    pub set: Vec<(String, String)>,
    /// These do not stand at all.
    pub remove: Vec<String>,
}
