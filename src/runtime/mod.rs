//! The server: workers, reload, drain, signals.
