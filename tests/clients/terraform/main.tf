# Resources that users of Terraform create for SageMaker. Environment variables set the address and the credentials.
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  s3_use_path_style = true
}

variable "bundle" { type = string }

resource "aws_s3_bucket" "data" {
  bucket        = "terraform-data"
  force_destroy = true
  tags          = { team = "a" }
}

resource "aws_s3_bucket_public_access_block" "data" {
  bucket                  = aws_s3_bucket.data.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "data" {
  bucket = aws_s3_bucket.data.id
  rule {
    apply_server_side_encryption_by_default { sse_algorithm = "AES256" }
  }
}

resource "aws_s3_bucket_policy" "data" {
  bucket = aws_s3_bucket.data.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Deny", Principal = "*", Action = "s3:*", Resource = "*", Condition = { Bool = { "aws:SecureTransport" = "false" } } }
  ] })
}

resource "aws_s3_object" "model" {
  bucket = aws_s3_bucket.data.id
  key    = "model.tar.gz"
  source = var.bundle
}

resource "aws_iam_role" "sagemaker" {
  name        = "terraform-sagemaker"
  path        = "/teams/"
  description = "for jobs"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Allow", Principal = { Service = "sagemaker.amazonaws.com" }, Action = "sts:AssumeRole" }
  ] })
  tags = { team = "a" }
}

resource "aws_iam_role_policy" "sagemaker" {
  name = "data"
  role = aws_iam_role.sagemaker.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Allow", Action = "s3:*", Resource = "${aws_s3_bucket.data.arn}/*" }
  ] })
}

resource "aws_iam_role_policy_attachment" "sagemaker" {
  role       = aws_iam_role.sagemaker.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
}

resource "aws_ecr_repository" "image" {
  name = "terraform/image"
  tags = { team = "a" }
}

resource "aws_sagemaker_model" "model" {
  name               = "terraform-model"
  execution_role_arn = aws_iam_role.sagemaker.arn
  tags               = { team = "a" }
  primary_container {
    image          = "${aws_ecr_repository.image.repository_url}:dev"
    model_data_url = "s3://${aws_s3_bucket.data.id}/${aws_s3_object.model.key}"
    environment    = { A = "b" }
  }
}

resource "aws_sagemaker_endpoint_configuration" "config" {
  name = "terraform-config"
  production_variants {
    variant_name           = "main"
    model_name             = aws_sagemaker_model.model.name
    instance_type          = "ml.m5.large"
    initial_instance_count = 1
  }
}

resource "aws_sagemaker_model_package_group" "group" {
  model_package_group_name        = "terraform-group"
  model_package_group_description = "versions of one model"
  tags                            = { team = "a" }
}

resource "aws_sagemaker_model_package_group_policy" "group" {
  model_package_group_name = aws_sagemaker_model_package_group.group.model_package_group_name
  resource_policy = jsonencode({ Version = "2012-10-17", Statement = [{
    Sid       = "read"
    Effect    = "Allow"
    Principal = { AWS = "arn:aws:iam::111111111111:root" }
    Action    = "sagemaker:DescribeModelPackageGroup"
    Resource  = aws_sagemaker_model_package_group.group.arn
  }] })
}
