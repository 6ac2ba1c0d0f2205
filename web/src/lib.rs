//! The engine for web pages. Nothing is here yet; see the README for what works.
