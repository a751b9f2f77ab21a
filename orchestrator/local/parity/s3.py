"""Parity rows of S3. A member has the same row in every operation, unless the operation has its own row for it."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

# Some constants of this module are texts with the names of members, separated by spaces.
SSE_C = "SSECustomerAlgorithm SSECustomerKey SSECustomerKeyMD5"
SSE = f"ServerSideEncryption {SSE_C} SSEKMSKeyId SSEKMSEncryptionContext BucketKeyEnabled"
SOURCE_SSE = "CopySourceSSECustomerAlgorithm CopySourceSSECustomerKey CopySourceSSECustomerKeyMD5"
OBJECT_LOCK_MEMBERS = (
    "ObjectLockEventHold ObjectLockEventHoldDurationDays ObjectLockEventHoldDurationYears"
    " ObjectLockLegalHoldStatus ObjectLockMode ObjectLockRetainUntilDate"
)
ACL_MEMBERS = "ACL GrantFullControl GrantRead GrantReadACP GrantWriteACP"
DIRECTORY_BUCKET = Refused("directory buckets are not supported")
NO_GRANTS = Refused("buckets and objects belong to the server's one account: remove the member")
ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5")
"""The supported algorithms of checksums."""
UNSUPPORTED_CHECKSUM_MEMBERS = "ChecksumXXHASH64 ChecksumXXHASH3 ChecksumXXHASH128"
CHECKSUM_MEMBERS = f"{' '.join(f'Checksum{algorithm}' for algorithm in ALGORITHMS)} {UNSUPPORTED_CHECKSUM_MEMBERS}"


def _make_algorithm_row(meaning: str) -> Honoured:
    return Honoured(meaning, values=ALGORITHMS, reason="other algorithms are not supported")


ROWS: Mapping[str, Row] = {
    **dict.fromkeys(f"{SSE} {SOURCE_SSE}".split(), NoEffect("nothing is encrypted")),
    **dict.fromkeys(
        f"{OBJECT_LOCK_MEMBERS} ObjectLockEnabledForBucket".split(),
        Refused("objects cannot be locked: remove the member"),
    ),
    **dict.fromkeys(f"{ACL_MEMBERS} GrantWrite".split(), NO_GRANTS),
    **dict.fromkeys(UNSUPPORTED_CHECKSUM_MEMBERS.split(), Refused(f"use one of {', '.join(ALGORITHMS)}")),
    **dict.fromkeys(("IfMatchLastModifiedTime", "IfMatchSize"), Refused("use IfMatch instead")),
    **dict.fromkeys(
        ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"),
        Honoured("the server's account; for other accounts the error is AccessDenied"),
    ),
    "ACL": Honoured(
        "only the owner can access an object",
        values=("private", "bucket-owner-read", "bucket-owner-full-control"),
        reason="only the holder of the server's credentials can read",
    ),
    "AnnotationDirective": Refused("objects have no annotations"),
    "BucketNamespace": Refused("bucket names have one namespace: remove the member"),
    "BypassGovernanceRetention": NoEffect("no object is retained"),
    "ChecksumAlgorithm": _make_algorithm_row("algorithm of the checksum in a header or trailer of the request"),
    "ContentLength": NoEffect("the size of the body is always counted"),
    "IfMatchInitiatedTime": DIRECTORY_BUCKET,
    "MFA": NoEffect("no bucket requires a second factor"),
    "ObjectOwnership": NoEffect("the server has one account"),
    "OptionalObjectAttributes": NoEffect("no object is restored from an archive"),
    "RequestPayer": NoEffect("requests cost nothing"),
    "StorageClass": NoEffect("objects use this machine's disk"),
    "VersionId": Honoured("the only version", values=("null",), reason="versions are not kept"),
    "WebsiteRedirectLocation": Refused("buckets are not served as websites"),
    "WriteOffsetBytes": Refused("appending is not supported: put the whole object"),
}
"""Rows of members, for operations that have no row of their own. The default of other members is `Honoured()`."""

DETAILS_MEMBERS = "CacheControl ContentDisposition ContentEncoding ContentLanguage ContentType Expires Metadata Tagging"
NEW_OBJECT_MEMBERS = f"{DETAILS_MEMBERS} {SSE} StorageClass {ACL_MEMBERS} WebsiteRedirectLocation {OBJECT_LOCK_MEMBERS}"
CONDITIONS = "IfMatch IfModifiedSince IfNoneMatch IfUnmodifiedSince"
SOURCE_MEMBERS = f"CopySource {' '.join(f'CopySource{name}' for name in CONDITIONS.split())} {SOURCE_SSE}"
RESPONSE_MEMBERS = " ".join(
    f"Response{name}"
    for name in ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")
)
BUCKET = "Bucket ExpectedBucketOwner"
OBJECT = "Bucket Key ExpectedBucketOwner RequestPayer"
READ_MEMBERS = f"{OBJECT} {CONDITIONS} Range {RESPONSE_MEMBERS} VersionId {SSE_C} PartNumber ChecksumMode"
LIST_MEMBERS = f"{BUCKET} Delimiter EncodingType MaxKeys Prefix RequestPayer OptionalObjectAttributes"

PUT_SETTING_MEMBERS = f"{BUCKET} ContentMD5 ChecksumAlgorithm"
STORED_SETTING = NoEffect("stored and described; nothing is encrypted, and only the home's owner can read")
DESCRIBED_SETTINGS = (
    *("BucketAcl", "BucketCors", "BucketEncryption", "BucketLifecycleConfiguration"),
    *("BucketLogging", "BucketNotificationConfiguration", "BucketOwnershipControls", "BucketPolicy"),
    *("BucketPolicyStatus", "BucketReplication", "BucketRequestPayment", "BucketTagging", "BucketVersioning"),
    *("BucketWebsite", "ObjectLockConfiguration", "PublicAccessBlock"),
)
DELETED_SETTINGS = (
    *("BucketCors", "BucketEncryption", "BucketLifecycle", "BucketOwnershipControls", "BucketPolicy"),
    *("BucketReplication", "BucketTagging", "BucketWebsite", "PublicAccessBlock"),
)

NO_PARTS = Refused("only the number of parts is listed: use ListParts before the upload is completed")
TAGGING = Members({"TagSet": Members({"Key": Honoured(), "Value": Honoured()})})


def _make_rows(names: str, **rows: Row) -> Rows:
    return {name: rows.get(name) or ROWS.get(name) or Honoured() for name in (*names.split(), *rows)}


S3: dict[str, Rows] = {
    "ListBuckets": _make_rows("MaxBuckets ContinuationToken Prefix BucketRegion"),
    "CreateBucket": _make_rows(
        f"Bucket {ACL_MEMBERS} GrantWrite ObjectLockEnabledForBucket ObjectOwnership BucketNamespace",
        CreateBucketConfiguration=Members(
            {
                "LocationConstraint": Honoured("the server's region; other regions are an error, as on AWS"),
                "Location": DIRECTORY_BUCKET,
                "Bucket": DIRECTORY_BUCKET,
                "Tags": Refused("use PutBucketTagging"),
            }
        ),
    ),
    "HeadBucket": _make_rows(BUCKET),
    "DeleteBucket": _make_rows(BUCKET),
    "GetBucketLocation": _make_rows(BUCKET),
    "ListObjects": _make_rows(f"{LIST_MEMBERS} Marker"),
    "ListObjectVersions": _make_rows(f"{LIST_MEMBERS} KeyMarker VersionIdMarker"),
    "ListObjectsV2": _make_rows(f"{LIST_MEMBERS} ContinuationToken FetchOwner StartAfter"),
    "PutObject": _make_rows(
        f"{OBJECT} Body ContentLength ContentMD5 ChecksumAlgorithm {CHECKSUM_MEMBERS} IfMatch IfNoneMatch"
        f" WriteOffsetBytes {NEW_OBJECT_MEMBERS}"
    ),
    "GetObject": _make_rows(READ_MEMBERS),
    "HeadObject": _make_rows(READ_MEMBERS),
    "DeleteObject": _make_rows(
        f"{OBJECT} MFA VersionId BypassGovernanceRetention IfMatch IfMatchLastModifiedTime IfMatchSize"
    ),
    "DeleteObjects": _make_rows(
        f"{BUCKET} MFA RequestPayer BypassGovernanceRetention ChecksumAlgorithm",
        Delete=Members(
            {
                "Objects": Members(
                    {
                        **_make_rows("Key VersionId"),
                        "ETag": Honoured(),
                        "LastModifiedTime": Refused("use ETag instead"),
                        "Size": Refused("use ETag instead"),
                    }
                ),
                "Quiet": Honoured(),
            }
        ),
    ),
    "GetObjectAttributes": _make_rows(
        f"{OBJECT} VersionId {SSE_C} ObjectAttributes",
        MaxParts=NO_PARTS,
        PartNumberMarker=NO_PARTS,
    ),
    "GetObjectTagging": _make_rows(f"{OBJECT} VersionId"),
    "PutObjectTagging": _make_rows(f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm", Tagging=TAGGING),
    "DeleteObjectTagging": _make_rows(f"{BUCKET} Key VersionId"),
    "CopyObject": _make_rows(
        f"{OBJECT} ExpectedSourceBucketOwner {SOURCE_MEMBERS} IfMatch IfNoneMatch MetadataDirective TaggingDirective"
        f" AnnotationDirective {NEW_OBJECT_MEMBERS}",
        ChecksumAlgorithm=_make_algorithm_row("algorithm of the copy's checksum"),
    ),
    "CreateMultipartUpload": _make_rows(
        f"{OBJECT} ChecksumType {NEW_OBJECT_MEMBERS}",
        ChecksumAlgorithm=_make_algorithm_row("algorithm of the object's checksum"),
    ),
    "UploadPart": _make_rows(
        f"{OBJECT} Body ContentLength ContentMD5 ChecksumAlgorithm {CHECKSUM_MEMBERS} PartNumber UploadId {SSE_C}"
    ),
    "UploadPartCopy": _make_rows(
        f"{OBJECT} ExpectedSourceBucketOwner {SOURCE_MEMBERS} CopySourceRange PartNumber UploadId {SSE_C}"
    ),
    "CompleteMultipartUpload": _make_rows(
        f"{OBJECT} UploadId {CHECKSUM_MEMBERS} ChecksumType MpuObjectSize IfMatch IfNoneMatch {SSE_C}",
        MultipartUpload=Members({"Parts": Members(_make_rows(f"ETag PartNumber {CHECKSUM_MEMBERS}"))}),
    ),
    "AbortMultipartUpload": _make_rows(f"{OBJECT} UploadId IfMatchInitiatedTime"),
    "ListParts": _make_rows(f"{OBJECT} MaxParts PartNumberMarker UploadId {SSE_C}"),
    "ListMultipartUploads": _make_rows(
        f"{BUCKET} EncodingType KeyMarker MaxUploads Prefix RequestPayer UploadIdMarker",
        Delimiter=Refused("the list has no common prefixes: remove the member"),
    ),
    **{f"Get{name}": _make_rows(BUCKET) for name in DESCRIBED_SETTINGS},
    "GetBucketAccelerateConfiguration": _make_rows(f"{BUCKET} RequestPayer"),
    **{f"Delete{name}": _make_rows(BUCKET) for name in DELETED_SETTINGS},
    "PutBucketEncryption": _make_rows(PUT_SETTING_MEMBERS, ServerSideEncryptionConfiguration=STORED_SETTING),
    "PutPublicAccessBlock": _make_rows(PUT_SETTING_MEMBERS, PublicAccessBlockConfiguration=STORED_SETTING),
    "PutBucketOwnershipControls": _make_rows(PUT_SETTING_MEMBERS, OwnershipControls=STORED_SETTING),
    "PutBucketTagging": _make_rows(PUT_SETTING_MEMBERS, Tagging=TAGGING),
    "PutBucketPolicy": _make_rows(
        PUT_SETTING_MEMBERS, ConfirmRemoveSelfBucketAccess=NoEffect("policies are not enforced"), Policy=STORED_SETTING
    ),
    "PutBucketVersioning": _make_rows(
        f"{PUT_SETTING_MEMBERS} MFA",
        VersioningConfiguration=Members(
            {
                "Status": Honoured(values=("Suspended",), reason="versions are not kept"),
                "MFADelete": Honoured(values=("Disabled",), reason="versions are not kept"),
            }
        ),
    ),
    "PutBucketAcl": _make_rows(f"{PUT_SETTING_MEMBERS} {ACL_MEMBERS} GrantWrite", AccessControlPolicy=NO_GRANTS),
    "GetObjectAcl": _make_rows(f"{OBJECT} VersionId"),
    "PutObjectAcl": _make_rows(
        f"{OBJECT} VersionId ContentMD5 ChecksumAlgorithm {ACL_MEMBERS} GrantWrite", AccessControlPolicy=NO_GRANTS
    ),
}
