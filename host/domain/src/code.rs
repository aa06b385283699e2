//! The stable names of refusals: what the host says no with to another party and to its operator, and
//! what it calls a message that it does not take. Names of errors of the Service API are
//! `privatix_plugin_api::ErrorName`, those of packages `privatix_modules::problem::Code`.
//!
//! This is the only list. A test compares docs/reference/codes.md with it.

use privatix_plugin_api::json::JsonError;
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// The stable name of a refusal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Code {
    // Refusals of the exchange.
    /// Not JSON.
    InvalidJson,
    /// A key is twice in one object.
    DuplicateKey,
    /// A number is above 9007199254740991.
    NumberTooLarge,
    /// A number has a fraction, an exponent or a sign.
    NumberNotInteger,
    /// Nested deeper than 64 levels.
    TooDeep,
    /// The body has more than 4096 bytes.
    MessageTooLarge,
    /// The request cannot be read, or names what does not exist.
    BadRequest,
    /// The agent speaks TLS here.
    TlsRequired,
    /// Too many requests of this address in a minute.
    TooManyRequests,
    /// The request took more than 10 s.
    TooSlow,
    /// There is nothing of that name, or more than one begins so.
    NotFound,
    /// The host failed; its log says why.
    Internal,
    /// The host of the other role does that.
    WrongRole,
    /// Not the form of an order or of a cancellation.
    MalformedOrder,
    /// The order is not signed by the client that it names.
    BadOrderSignature,
    /// The agent has not made this offering.
    OfferingNotFound,
    /// The order is for another offering.
    WrongOffering,
    /// The offering takes no more orders.
    OfferingWithdrawn,
    /// `expires` is not after the agent's time.
    OrderExpired,
    /// `expires` is more than a day ahead.
    OrderExpiryTooFar,
    /// The deposit is below the least one.
    DepositTooLow,
    /// The nonce was used for another order.
    NonceUsed,
    /// The agent's operator does not take this client's orders.
    ClientNotAllowed,
    /// The agent's operator has refused the order.
    OrderRejected,
    /// The client has cancelled the order.
    OrderCancelled,
    /// Too many orders of this client in an hour.
    TooManyOrders,
    /// Too many channels of this client.
    TooManyChannels,
    /// Too many orders wait for the agent's operator.
    TooManyWaiting,
    /// All of the supply is taken.
    SupplyExhausted,
    /// The agent's module has not said where it is, so there is no valid access message.
    ProductNotReady,
    /// A cancellation of another client's order.
    ForeignOrder,
    /// There is no such channel.
    ChannelNotFound,
    /// Not the form of a request.
    MalformedRequest,
    /// The request is not signed by the channel's client as this kind of request.
    BadRequestSignature,
    /// The request names another channel than the path.
    ForeignRequest,
    /// `time` and the agent's clock are more than 120 s apart.
    StaleRequest,
    /// The nonce was used before.
    RepeatedRequest,
    /// Not the form of a cheque.
    MalformedCheque,
    /// The cheque is not from the channel's client to its agent.
    WrongChequeParties,
    /// The cheque is for another channel.
    ForeignCheque,
    /// The cheque is for another offering.
    WrongChequeOffering,
    /// The cheque is not signed by the client.
    BadChequeSignature,
    /// A higher cheque is here already, or the balance is 0.
    StaleCheque,
    /// The cheque is for more than the deposit.
    AboveDeposit,
    /// The agent could not sign its answer.
    NotSignable,
    // Refusals of an agent's messages.
    /// Not the form of an offering.
    MalformedOffering,
    /// The offering is not signed by the agent that it names, or by another than the one asked for.
    BadOfferingSignature,
    /// A hash of a template does not have the form of one.
    BadTemplateHash,
    /// The country is not two capital letters.
    BadCountry,
    /// The supply breaks a rule of offerings.
    BadSupply,
    /// The unit size breaks a rule of offerings.
    BadUnitSize,
    /// The billing interval breaks a rule of offerings.
    BadBillingInterval,
    /// The billing lag breaks a rule of offerings.
    BadBillingUnitLag,
    /// The most units break a rule of offerings.
    BadMaxUnits,
    /// The least deposit cannot be computed.
    MinDepositTooLarge,
    /// The agent's URL breaks a rule of offerings.
    BadExchange,
    /// The module is here, with other templates.
    WrongTemplate,
    /// Not valid by the offering template.
    InvalidOffering,
    /// Not the form of a reply.
    MalformedReply,
    /// The reply is not signed by the agent.
    BadReplySignature,
    /// The reply is for another order.
    ForeignReply,
    /// The agent chose the id of another channel.
    ChannelTaken,
    /// Not the form of a refusal.
    MalformedRefusal,
    /// The refusal is not signed by the agent.
    BadRefusalSignature,
    /// The refusal is of another order.
    ForeignRefusal,
    /// Not the form of an access message.
    MalformedAccess,
    /// The access message is not signed by the agent.
    BadAccessSignature,
    /// The access message is another channel's.
    ForeignAccess,
    /// A newer access message is here already.
    StaleAccess,
    /// Sealed to another key, or altered.
    AccessNotOpened,
    /// There is no template with the noted hash.
    TemplateNotFound,
    /// The message inside is not valid.
    InvalidAccess,
    /// Cheques would go elsewhere than to the agent's URL.
    ForeignPaymentReceiver,
    /// Not the form of a statement.
    MalformedAccount,
    /// The statement is not signed by the agent.
    BadAccountSignature,
    /// The statement is another channel's.
    ForeignAccount,
    /// A newer statement is here already.
    StaleAccount,
    /// Not the form of a receipt.
    MalformedReceipt,
    /// The receipt is not signed by the agent.
    BadReceiptSignature,
    /// The receipt is for another channel.
    ForeignReceipt,
    /// The receipt is for less than the cheque.
    ReceiptTooLow,
    /// The messages of a cheque bundle do not belong together.
    BundleMismatch,
    /// A signature fits neither the message nor the key.
    BadSignature,
    /// Not a key, or one of small order.
    BadKey,
    /// Not an identity file.
    BadIdentity,
    /// The agent could not seal an access message.
    NotSealable,
    // Refusals of the operator's requests.
    /// The request makes no sense in the present status.
    BadStatus,
    /// The module does not run.
    NotRunning,
    /// The module is a library, which needs no token.
    NotStandalone,
    /// The offering template does not have this field.
    UnknownField,
    /// The host fills in this field.
    FieldNotYours,
    /// The offering has more than 64 KiB.
    OfferingTooLarge,
    /// The agent was not reached, or did not answer as an agent.
    NotFetched,
    /// The clocks of agent and client are more than 120 s apart.
    ClocksDiffer,
    /// The agent's key is not accepted.
    AgentNotPinned,
    /// The offering is another agent's.
    ForeignAgent,
    /// The offering sends orders to another address than the one it was fetched from.
    ForeignExchange,
    /// Something in the list names no agent.
    BadOffering,
    /// The agent has more offerings than a client reads.
    TooManyOfferings,
    /// No module here has the templates of the offering.
    UnknownProduct,
    /// Several modules here have them.
    SeveralProducts,
    /// The chosen module does not have them.
    WrongProduct,
    /// The access message is not here yet.
    AccessNotFound,
    // Form and templates.
    /// The template has more than 256 KiB.
    TemplateTooLarge,
    /// Neither `{"schema", "uiSchema"}` nor a bare JSON Schema.
    BadTemplateForm,
    /// `$schema` names no draft that is known.
    UnknownDraft,
    /// A reference leaves the document.
    RemoteReference,
    /// References go in a circle, or lead to too much.
    TemplateTooComplex,
    /// A pattern is outside the limits.
    UnsupportedPattern,
    /// Not valid by its draft.
    InvalidSchema,
    /// A core field is not declared.
    CoreFieldMissing,
    /// A core field is declared as something else.
    CoreFieldType,
    /// A core field may be left out.
    CoreFieldNotRequired,
}

/// What the sender of a refused message can hope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same message may be taken later.
    Later,
    /// The message that came may not be the one that was sent, which may well be taken.
    Resend,
    /// The same message will never be taken.
    Never,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name on the wire.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// The status of HTTP that an agent answers a client's request with.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::ChannelNotFound | Self::OfferingNotFound => 404,
            Self::TooManyRequests
            | Self::TooManyOrders
            | Self::TooManyChannels
            | Self::TooManyWaiting => 429,
            Self::ProductNotReady | Self::SupplyExhausted => 503,
            Self::ClientNotAllowed | Self::OrderRejected | Self::OrderCancelled => 403,
            Self::MessageTooLarge => 413,
            Self::TooSlow => 408,
            _ => 400,
        }
    }

    /// The status of HTTP that the host answers its operator with.
    pub fn operator_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::NotFound | Self::ChannelNotFound => 404,
            _ => 400,
        }
    }

    /// Whether the same message may be taken later. An agent signs a refusal only where it is for good.
    pub fn retry(self) -> Retry {
        match self {
            Self::Internal
            | Self::NotFound
            | Self::TooManyRequests
            | Self::TooSlow
            | Self::TooManyOrders
            | Self::TooManyChannels
            | Self::TooManyWaiting
            | Self::ProductNotReady
            | Self::SupplyExhausted => Retry::Later,
            // The client of an altered order has signed another one, and would not know this by its hash.
            Self::BadOrderSignature => Retry::Resend,
            _ => Retry::Never,
        }
    }
}

impl From<&JsonError> for Code {
    fn from(error: &JsonError) -> Self {
        match error {
            JsonError::Invalid(_) => Self::InvalidJson,
            JsonError::DuplicateKey { .. } => Self::DuplicateKey,
            JsonError::NumberTooLarge { .. } => Self::NumberTooLarge,
            JsonError::NumberNotInteger { .. } => Self::NumberNotInteger,
            JsonError::TooDeep { .. } => Self::TooDeep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses other than 400, each with the codes that have it.
    fn check(status: fn(Code) -> u16, expected: &[(u16, &[Code])]) {
        for code in Code::ALL {
            let row = expected.iter().find(|(_, codes)| codes.contains(code));
            assert_eq!(status(*code), row.map_or(400, |(status, _)| *status), "{code}");
        }
    }

    #[test]
    fn an_agent_answers_every_code_with_its_status() {
        use Code::*;
        check(
            Code::http_status,
            &[
                (403, &[ClientNotAllowed, OrderRejected, OrderCancelled]),
                (404, &[ChannelNotFound, OfferingNotFound]),
                (408, &[TooSlow]),
                (413, &[MessageTooLarge]),
                (429, &[TooManyRequests, TooManyOrders, TooManyChannels, TooManyWaiting]),
                (500, &[Internal]),
                (503, &[ProductNotReady, SupplyExhausted]),
            ],
        );
    }

    #[test]
    fn the_operator_is_answered_every_code_with_its_status() {
        check(
            Code::operator_status,
            &[(404, &[Code::NotFound, Code::ChannelNotFound]), (500, &[Code::Internal])],
        );
    }

    #[test]
    fn nine_codes_pass_and_one_is_sent_again() {
        use Code::*;
        let later = [
            Internal,
            NotFound,
            TooManyRequests,
            TooSlow,
            TooManyOrders,
            TooManyChannels,
            TooManyWaiting,
            ProductNotReady,
            SupplyExhausted,
        ];
        for code in Code::ALL {
            let expected = match code {
                code if later.contains(code) => Retry::Later,
                BadOrderSignature => Retry::Resend,
                _ => Retry::Never,
            };
            assert_eq!(code.retry(), expected, "{code}");
        }
    }

    #[test]
    fn names_are_those_of_the_variants_and_lead_back() {
        for code in Code::ALL {
            assert_eq!(code.code().parse(), Ok(*code));
            assert_eq!(code.to_string(), code.code());
        }
        for name in ["", "internal", "Internal ", "OutOfTea"] {
            assert!(name.parse::<Code>().is_err(), "{name:?}");
        }
    }
}
