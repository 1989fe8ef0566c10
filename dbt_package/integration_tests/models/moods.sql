{{ config(
    materialized='mistral_batch',
    custom_id='id',
    output='STRUCT(mood VARCHAR, score DOUBLE)',
    results=['total_tokens', 'answered_at'],
    retry=var('retry', none),
    retry_times=var('retry_times', none),
    tags=['paid'],
) }}
SELECT id, body AS prompt, product FROM {{ ref('tickets') }}
