-- Names for values in logs: topic hashes of events, and the parts of a 32-byte word.

-- Transfer(address indexed from, address indexed to, uint256 value) of ERC-20. An ERC-721 has the same topic, and four topics.
create macro transfer_topic() as '\xdd\xf2\x52\xad\x1b\xe2\xc8\x9b\x69\xc2\xb0\x68\xfc\x37\x8d\xaa\x95\x2b\xa7\xf1\x63\xc4\xa1\x16\x28\xf5\x5a\x4d\xf5\x23\xb3\xef'::blob;

-- Deposit(address indexed dst, uint256 wad) of WETH-like tokens, which mint without a Transfer.
create macro deposit_topic() as '\xe1\xff\xfc\xc4\x92\x3d\x04\xb5\x59\xf4\xd2\x9a\x8b\xfc\x6c\xda\x04\xeb\x5b\x0d\x3c\x46\x07\x51\xc2\x40\x2c\x5c\x5c\xc9\x10\x9c'::blob;

-- Withdrawal(address indexed src, uint256 wad) of WETH-like tokens, which burn without a Transfer.
create macro withdrawal_topic() as '\x7f\xcf\x53\x2c\x15\xf0\xa6\xdb\x0b\xd6\xd0\xe0\x38\xbe\xa7\x1d\x30\xd8\x08\xc7\xd9\x8c\xb3\xbf\x72\x68\xa9\x5b\xf5\x08\x1b\x65'::blob;

-- Delegate(uint64 indexed valId, address indexed delegator, uint256 amount, uint64 activationEpoch) of Monad's staking.
create macro delegate_topic() as '\xe4\xd4\xdf\x1e\x18\x27\xdd\x28\x25\x2f\xd5\xc3\xcd\x7e\xbc\xcd\x3d\xa6\xe0\xaa\x31\xf7\x4c\x82\x8f\x3c\x85\x42\xaf\x49\xd8\x40'::blob;

-- Undelegate(uint64 indexed valId, address indexed delegator, uint8 withdrawId, uint256 amount, uint64 activationEpoch).
create macro undelegate_topic() as '\x3e\x53\xc8\xb9\x17\x47\xe1\xb7\x2a\x44\x89\x4d\xb1\x0f\x2a\x45\xfa\x63\x2b\x16\x1f\xdc\xdd\x3a\x17\xbd\x6b\xe5\x48\x2b\xac\x62'::blob;

-- The address that a token mints from and burns to.
create macro zero_address() as '\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'::blob;

-- The address in a topic, which is padded to 32 bytes.
create macro topic_address(topic) as array_slice(topic, 13, 32);

-- Whether a log is a Transfer of an ERC-20, or a Deposit or Withdrawal of a WETH-like token. Rows need the columns of logs.
create macro is_token_event(topic0, topic1, topic2, topic3, data) as
    octet_length(data) = 32
    and (
        (topic0 = transfer_topic() and topic2 is not null and topic3 is null)
        or (topic0 in (deposit_topic(), withdrawal_topic()) and topic1 is not null and topic2 is null)
    );
