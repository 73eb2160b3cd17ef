//! What of search the model asks for.

use fhirsim::fhir::FhirVersion::{self, R4, R5, Stu3};

/// One way to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    StringBegin,
    StringExact,
    StringContains,
    StringText,
    Token,
    TokenNot,
    TokenText,
    TokenOfType,
    TokenIn,
    TokenNotIn,
    TokenAbove,
    TokenBelow,
    TokenCodeText,
    DateEquality,
    DateOrder,
    DateApproximate,
    NumberEquality,
    NumberOrder,
    NumberApproximate,
    QuantityNumber,
    QuantityUnit,
    QuantityUcum,
    QuantityMoney,
    Uri,
    UriBelow,
    UriAbove,
    UriContains,
    UriContainsAnyCase,
    Reference,
    ReferenceType,
    ReferenceIdentifier,
    ReferenceText,
    ReferenceAbove,
    ReferenceBelow,
    Canonical,
    CanonicalBelow,
    Missing,
    /// Of a concept that may be there without a code.
    MissingCode,
    MissingQuantity,
    Or,
    Escape,
    Near,
    Composite,
    CompositeOfCode,
    CompositeOfReference,
    Chain,
    ChainAnyType,
    ChainTwo,
    ChainCanonical,
    Has,
    HasNested,
    HasCanonical,
    ChainHas,
    Id,
    LastUpdated,
    List,
    In,
    Compartment,
    Text,
    /// Words that are written with numbers of characters: `caf&#233;`.
    TextByNumber,
    Content,
    Filter,
    FilterUnequal,
    /// With `and`, `or`, `not` and parentheses.
    FilterLogic,
    FilterChain,
    /// What has nothing at the end of a path: `organization.name pr false`.
    FilterChainNothing,
    Include,
    IncludeIterate,
    RevInclude,
    RevIncludeCanonical,
}

use Feature as F;

impl Feature {
    /// The first version that has it.
    fn since(self) -> FhirVersion {
        match self {
            F::TokenOfType
            | F::ReferenceIdentifier
            | F::Near
            | F::QuantityMoney
            | F::Canonical
            | F::CanonicalBelow
            | F::ChainCanonical
            | F::HasCanonical
            | F::RevIncludeCanonical => R4,
            F::TokenCodeText | F::StringText | F::ReferenceText | F::UriContains | F::UriContainsAnyCase | F::CompositeOfReference | F::In => R5,
            _ => Stu3,
        }
    }
}

/// All that a version has, but for what the server is known to do otherwise. `NAIVE_ALL` asks for that, too.
pub fn features(version: FhirVersion) -> Vec<Feature> {
    let all = std::env::var_os("NAIVE_ALL").is_some();
    let open = |feature: Feature| OPEN.iter().any(|(f, versions)| *f == feature && versions.contains(&version));
    ALL.iter().copied().filter(|feature| feature.since() <= version && (all || !open(*feature))).collect()
}

/// What the server does otherwise than the specification says, and the model with it.
const OPEN: &[(Feature, &[FhirVersion])] = &[
    // Refused, because the definitions' expressions of its components lead nowhere.
    (F::CompositeOfReference, &[R5]),
];

const ALL: &[Feature] = &[
    F::StringBegin,
    F::StringExact,
    F::StringContains,
    F::StringText,
    F::Token,
    F::TokenNot,
    F::TokenText,
    F::TokenOfType,
    F::TokenIn,
    F::TokenNotIn,
    F::TokenAbove,
    F::TokenBelow,
    F::TokenCodeText,
    F::DateEquality,
    F::DateOrder,
    F::DateApproximate,
    F::NumberEquality,
    F::NumberOrder,
    F::NumberApproximate,
    F::QuantityNumber,
    F::QuantityUnit,
    F::QuantityUcum,
    F::QuantityMoney,
    F::Uri,
    F::UriBelow,
    F::UriAbove,
    F::UriContains,
    F::UriContainsAnyCase,
    F::Reference,
    F::ReferenceType,
    F::ReferenceIdentifier,
    F::ReferenceText,
    F::ReferenceAbove,
    F::ReferenceBelow,
    F::Canonical,
    F::CanonicalBelow,
    F::Missing,
    F::MissingCode,
    F::MissingQuantity,
    F::Or,
    F::Escape,
    F::Near,
    F::Composite,
    F::CompositeOfCode,
    F::CompositeOfReference,
    F::Chain,
    F::ChainAnyType,
    F::ChainTwo,
    F::ChainCanonical,
    F::Has,
    F::HasNested,
    F::HasCanonical,
    F::ChainHas,
    F::Id,
    F::LastUpdated,
    F::List,
    F::In,
    F::Compartment,
    F::Text,
    F::TextByNumber,
    F::Content,
    F::Filter,
    F::FilterUnequal,
    F::FilterLogic,
    F::FilterChain,
    F::FilterChainNothing,
    F::Include,
    F::IncludeIterate,
    F::RevInclude,
    F::RevIncludeCanonical,
];
